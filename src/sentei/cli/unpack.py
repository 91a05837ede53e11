"""``sentei unpack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.pack import ShardOption


@verb
def unpack(
    *,
    folder: Annotated[
        Path, typer.Argument(help="Folder of a packed model, or of a run that has one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    shard: ShardOption = "5GB",
    json: JsonOption = False,
) -> None:
    """Write a packed model as a plain one, which loads without Sentei."""
    from sentei.models.quiet import quiet_transformers
    from sentei.run.pack import unpack_folder

    quiet_transformers()
    unpack_folder(folder, out, shard=shard)
    if json:
        show_json({"out": str(out)})
    else:
        output.print(f"Written to {out}. Plain from_pretrained loads it.", soft_wrap=True)
