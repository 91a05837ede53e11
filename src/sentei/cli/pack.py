"""``sentei pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sentei.cli.app import JsonOption, show_json, verb
from sentei.cli.options import with_settings

KINDS = "fp32, bf16, fp16 or int8"

ShardOption = Annotated[str, typer.Option(help="Most bytes of one file of weights.")]


@verb
@with_settings("trust_remote_code")
def pack(
    options: dict[str, Any],
    *,
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to [default: packed/ in the folder of a run]."),
    ] = None,
    values: Annotated[
        str, typer.Option(help=f"What numbers of sparse matrices are written as: {KINDS}.")
    ] = "bf16",
    embeddings: Annotated[
        str, typer.Option(help=f"What those of embeddings are written as: {KINDS}.")
    ] = "bf16",
    compress: Annotated[
        bool, typer.Option("--compress/--no-compress", help="Compress with zstd.")
    ] = True,
    shard: ShardOption = "5GB",
    json: JsonOption = False,
) -> None:
    """Write a sparse model into a small folder, without its zeros.

    After `import sentei`, plain from_pretrained loads it. With fp32 every bit comes back; the
    others are rounded, and zeros stay where they were.
    """
    from sentei.cli.packing import facts_of, print_packed
    from sentei.models.quiet import quiet_transformers
    from sentei.run.pack import pack_folder

    quiet_transformers()
    chosen: Any = {"values": values, "embeddings": embeddings}
    packed, place = pack_folder(folder, out, compress=compress, shard=shard, **chosen, **options)
    if json:
        show_json(facts_of(packed, place))
    else:
        print_packed(packed, place)
