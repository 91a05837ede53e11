"""A model's folder, or a run's, packed; and made plain again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from sentei.files import replacing
from sentei.models.folder import check_free, copy_around, transformer_folder
from sentei.pack import Packed, pack, unpack
from sentei.pack.folder import Values
from sentei.run.shrink import locate

PLACE: Final = "packed"
"""Folder of a run's packed model, beside its model."""

Done = TypeVar("Done")


def pack_folder(
    folder: Path,
    out: Path | None,
    *,
    values: Values,
    embeddings: Values,
    compress: bool,
    shard: str,
    trust_remote_code: bool = False,
) -> tuple[Packed, Path]:
    """Pack a model.

    Args:
        folder: Of the model, or of its run.
        out: A new or empty folder; None is beside the model of a run.
        values: What the numbers of sparse matrices are written as.
        embeddings: What those of embeddings are.
        compress: Whether to compress with zstd.
        shard: Most bytes of a file.
        trust_remote_code: Whether code that comes with the model may be run.

    Returns:
        What it came to, and where it is.

    Raises:
        ValueError: There is no model to pack, or the folder cannot be written to.
    """
    source = locate(folder)
    if out is None:
        if source == folder:
            raise ValueError("--out is missing: name a folder for the packed model")
        out = folder / PLACE

    def write(inside: Path, place: Path) -> Packed:
        return pack(
            inside,
            place,
            values=values,
            embeddings=embeddings,
            compress=compress,
            shard=shard,
            trust_remote_code=trust_remote_code,
        )

    return _written(source, out, write), out


def unpack_folder(folder: Path, out: Path, *, shard: str) -> None:
    """Make a packed model plain again.

    Args:
        folder: Of the packed model.
        out: A new or empty folder.
        shard: Most bytes of a file.

    Raises:
        ValueError: There is no packed model, it is damaged, or the folder cannot be written to.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    inside = folder / PLACE
    source = inside if (inside / "config.json").is_file() else folder
    _written(source, out, lambda model, place: unpack(model, place, shard=shard))


def _written(source: Path, out: Path, write: Callable[[Path, Path], Done]) -> Done:
    """What writes a model, in a folder like the one that it came from."""
    inside = transformer_folder(source)
    if inside == source:
        return write(source, out)
    check_free(out)
    with replacing(out.resolve()) as unfinished:
        unfinished.mkdir(parents=True)
        done = write(inside, unfinished / inside.relative_to(source))
        copy_around(source, unfinished)
    return done
