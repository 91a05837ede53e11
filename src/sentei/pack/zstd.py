"""zstd, where it is installed: the extra ``pack``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FEW_MATCHES: Final = {
    "window_log": 17,
    "hash_log": 6,
    "chain_log": 6,
    "search_log": 1,
    "min_match": 7,
    "target_length": 0,
    "strategy": 1,
}
"""Bytes of weights seldom repeat: zstd's entropy coder alone is smaller, and twice as fast."""


def compressed(part: Array) -> Array:
    """Bytes as one zstd frame that says its size, or as they are where that is not smaller.

    Raises:
        ModuleNotFoundError: The extra ``pack`` is not installed; says so.
    """
    if not len(part):
        return part
    zstandard = package("to compress")
    settings = zstandard.ZstdCompressionParameters(**_FEW_MATCHES, write_content_size=1)
    frame = zstandard.ZstdCompressor(compression_params=settings).compress(part)
    return np.frombuffer(frame, np.uint8) if len(frame) < len(part) else part


def decompressed(stored: Array, size: int, name: str) -> Array:
    """What :func:`compressed` was given; no more memory is taken than for ``size`` bytes.

    Args:
        stored: What it gave.
        size: Bytes that it was given.
        name: Of the tensor, for the error.

    Raises:
        ValueError: The frame is damaged, or does not hold ``size`` bytes.
        ModuleNotFoundError: The extra ``pack`` is not installed; says so.
    """
    if len(stored) == size:
        return stored
    zstandard = package(f"to read {name}, which is compressed")
    try:
        claimed = zstandard.frame_content_size(stored)
        if claimed != size:
            raise ValueError(f"{name}: a frame holds {claimed:,} bytes where {size:,} belong")
        whole = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"{name}: a frame is damaged: {error}") from error
    return np.frombuffer(whole, np.uint8)


def package(purpose: str) -> Any:
    """The package zstandard.

    Args:
        purpose: What it is wanted for.

    Raises:
        ModuleNotFoundError: The extra ``pack`` is not installed; says so.
    """
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{purpose}, zstandard is needed: pip install 'sentei[pack]'"
        ) from error
    return zstandard
