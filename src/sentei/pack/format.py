"""A packed tensor as bytes: what docs/reference/format.md describes."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sentei.messages import short
from sentei.pack.tensor import PackedTensor, Part
from sentei.pack.values import BYTES
from sentei.untrusted import parse_json

Array = npt.NDArray[Any]

VERSION: Final = 1
"""Of the format that is written and read."""

_MAGIC: Final = b"sentei"
_FIXED: Final = 44
"""Bytes before the header: magic, version, digest, the header's length."""

MOST_HEADER: Final = 1 << 16
"""Bytes of a header."""

_MOST_ENTRIES: Final = 1 << 48
_MOST_DIMENSIONS: Final = 16
_KEYS: Final = {"name", "dtype", "shape", "coding", "values", "nonzeros", "parts"}


def to_bytes(tensor: PackedTensor) -> Array:
    """A packed tensor as one array of bytes."""
    header = json.dumps(
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "coding": tensor.coding,
            "values": tensor.values,
            "nonzeros": tensor.nonzeros,
            "parts": [[part.size, part.stored.nbytes] for part in tensor.parts],
        },
        separators=(",", ":"),
    ).encode()
    start = np.frombuffer(len(header).to_bytes(4, "little") + header, np.uint8)
    inside = [start, *(part.stored for part in tensor.parts)]
    digest = hashlib.sha256()
    for piece in inside:
        digest.update(piece.data)
    head = _MAGIC + VERSION.to_bytes(2, "little") + digest.digest()
    return np.concatenate([np.frombuffer(head, np.uint8), *inside])


def from_bytes(name: str, record: Array) -> PackedTensor:
    """A packed tensor out of its bytes, of which its parts are views.

    Args:
        name: The tensor's, which its header must say too.
        record: Its bytes.

    Raises:
        ValueError: They are not such a tensor's, of another version, damaged, or another tensor's.
    """
    if len(record) < _FIXED or record[: len(_MAGIC)].tobytes() != _MAGIC:
        raise ValueError(f"{name}: it is no packed tensor; get or pack the file again")
    version = int.from_bytes(record[6:8].tobytes(), "little")
    if version != VERSION:
        raise ValueError(
            f"{name}: packed in version {version} of the format, and this Sentei reads {VERSION}; "
            "take a Sentei that reads it, or pack the model again"
        )
    if hashlib.sha256(record[40:].data).digest() != record[8:40].tobytes():
        raise ValueError(
            f"{name}: it is not as it was written (its checksum differs); get or pack the "
            "file again"
        )
    try:
        return _checked(name, record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{name}: its header is not one of this format ({error}); get or pack the file again"
        ) from error


def claimed(start: Array) -> tuple[int, ...]:
    """The shape that a packed tensor's header claims, before the rest is read.

    Args:
        start: Its bytes, or as many of them as a header may have.

    Raises:
        ValueError: It is no header of this format.
    """
    header, _ = _header(start)
    shape = tuple(header["shape"]) if isinstance(header, dict) and "shape" in header else (-1,)
    if not all(type(number) is int and number >= 0 for number in shape):
        raise ValueError(f"its shape is {short(list(shape))}")
    return shape


def _header(record: Array) -> tuple[Any, Array]:
    """The header, and the bytes behind it."""
    length = int.from_bytes(record[40:44].tobytes(), "little")
    if length > min(MOST_HEADER, len(record) - _FIXED):
        raise ValueError(f"it claims a header of {length:,} bytes")
    start, body = np.split(record[_FIXED:], [length])
    return parse_json(start.tobytes().decode(), "the header"), body


def _checked(name: str, record: Array) -> PackedTensor:
    header, body = _header(record)
    if set(header) != _KEYS:
        raise ValueError(f"it has the keys {short(sorted(header))}")
    if header["name"] != name:
        raise ValueError(f"it is of the tensor {short(header['name'], 80)}")
    shape, dtype = tuple(header["shape"]), header["dtype"]
    coding, values = header["coding"], header["values"]
    numbers = [*shape, header["nonzeros"], *(one for pair in header["parts"] for one in pair)]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a size is no count")
    size = math.prod(shape)
    if len(shape) > _MOST_DIMENSIONS or size > _MOST_ENTRIES or max(shape, default=0) > size > 0:
        raise ValueError(f"its shape is {short(list(shape))}")
    if dtype not in BYTES or dtype == "int8" or values not in BYTES or BYTES[values] > BYTES[dtype]:
        raise ValueError(f"it is of {short(values)} for {short(dtype)}")
    sizes = [pair[0] for pair in header["parts"]]
    if sizes != _sizes(coding, values, shape, header["nonzeros"], sizes):
        raise ValueError(f"its parts are of {short(sizes)} bytes")
    return PackedTensor(
        name=name,
        shape=shape,
        dtype=dtype,
        coding=coding,
        values=values,
        nonzeros=header["nonzeros"],
        parts=_parts(header["parts"], body),
    )


def _sizes(
    coding: str, values: str, shape: tuple[int, ...], nonzeros: int, sizes: list[int]
) -> list[int]:
    """What the bytes of the parts must be; of gaps as claimed, where that can be."""
    size = math.prod(shape)
    mask = []
    if coding == "bitmask":
        mask = [-(-size // 8)]
    elif coding == "gaps":
        mask = [min(max(sizes[0], nonzeros), nonzeros + size // 255)]
    elif coding != "dense" or nonzeros != size:
        raise ValueError(f"its coding is {short(coding)}")
    if nonzeros > size:
        raise ValueError(f"it keeps {nonzeros:,} of {size:,} entries")
    scales = [2 * (shape[0] if shape else 1)] if values == "int8" else []
    return [*mask, *scales, *[nonzeros] * BYTES[values]]


def _parts(pairs: list[list[int]], body: Array) -> tuple[Part, ...]:
    parts, start = [], 0
    for size, stored in pairs:
        if stored > size:
            raise ValueError("a part is stored in more bytes than it has")
        parts.append(Part(size, body[start : start + stored]))
        start += stored
    if start != len(body):
        raise ValueError(f"its parts are {start:,} bytes, and {len(body):,} follow the header")
    return tuple(parts)
