"""A packed tensor as bytes: what docs/reference/format.md describes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sentei.messages import short
from sentei.pack.codings import ESCAPE
from sentei.pack.tensor import PackedTensor, Part
from sentei.pack.values import BYTES, FLOATS
from sentei.untrusted import parse_json, reason

Array = npt.NDArray[Any]

VERSION: Final = 1
"""Of the format that is written and read."""

_MAGIC: Final = b"sentei"
_SUMMED: Final = 40
"""Bytes before what the checksum is of: magic, version, checksum."""

_HEADER: Final = 44
"""Bytes before the header: these, and its length."""

MOST_HEADER: Final = 1 << 16
"""Bytes of a header, at most."""

_MOST_DIMENSIONS: Final = 16
_KEYS: Final = {"name", "dtype", "shape", "coding", "values", "nonzeros", "parts"}


def to_bytes(tensor: PackedTensor) -> Array:
    """A packed tensor as one array of bytes."""
    header = _text(tensor)
    start = np.frombuffer(len(header).to_bytes(4, "little") + header, np.uint8)
    inside = [start, *(part.stored for part in tensor.parts)]
    digest = hashlib.sha256()
    for piece in inside:
        digest.update(piece.data)
    head = _MAGIC + VERSION.to_bytes(2, "little") + digest.digest()
    return np.concatenate([np.frombuffer(head, np.uint8), *inside])


def size(tensor: PackedTensor) -> int:
    """How many :func:`to_bytes` gives."""
    return _HEADER + len(_text(tensor)) + tensor.nbytes


def from_bytes(name: str, record: Array) -> PackedTensor:
    """A packed tensor out of its bytes, of which its parts are views.

    Nothing is decoded, and no memory taken for what the header claims.

    Args:
        name: The tensor's, which its header must say too.
        record: Its bytes, uint8.

    Raises:
        ValueError: They are not such a tensor's, of another version, damaged, or another tensor's.
    """
    if record.dtype != np.uint8 or record.ndim != 1 or len(record) < _HEADER:
        raise ValueError(f"{name}: it is cut short, or no packed tensor")
    if record[: len(_MAGIC)].tobytes() != _MAGIC:
        raise ValueError(f"{name}: it is no packed tensor")
    check_version(name, int.from_bytes(record[6:8].tobytes(), "little"))
    if hashlib.sha256(record[_SUMMED:].data).digest() != record[8:_SUMMED].tobytes():
        raise ValueError(f"{name} is not as it was written (its checksum differs)")
    try:
        return _checked(name, record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name}: its header is wrong ({reason(error)})") from error


def check_version(what: object, version: object) -> None:
    """Refuse another version of the format.

    Raises:
        ValueError: It is another.
    """
    if version != VERSION:
        raise ValueError(
            f"{what} is packed in version {short(version)} of the format, and this Sentei reads "
            f"version {VERSION}: install the Sentei that it was packed with"
        )


def claimed(start: Array) -> tuple[int, ...]:
    """The shape that a packed tensor's header claims, before the rest is read.

    Args:
        start: Its bytes, or as many of them as a header may have.

    Raises:
        ValueError: It is no header of this format.
    """
    header, _ = _header(start)
    shape, _ = _shape(header["shape"], header["dtype"])
    return shape


def _text(tensor: PackedTensor) -> bytes:
    """The header of a tensor."""
    facts = {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "coding": tensor.coding,
        "values": tensor.values,
        "nonzeros": tensor.nonzeros,
        "parts": [[part.size, part.stored.nbytes] for part in tensor.parts],
    }
    return json.dumps(facts, separators=(",", ":")).encode()


def _header(record: Array) -> tuple[Any, Array]:
    """The header, and the bytes behind it."""
    length = int.from_bytes(record[_SUMMED:_HEADER].tobytes(), "little")
    if length > min(MOST_HEADER, len(record) - _HEADER):
        raise ValueError(f"it claims {length:,} bytes")
    text, body = np.split(record[_HEADER:], [length])
    return parse_json(text.tobytes().decode(), "header"), body


def _checked(name: str, record: Array) -> PackedTensor:
    header, body = _header(record)
    if set(header) != _KEYS:
        raise ValueError(f"its keys are {short(sorted(header), 100)}")
    if header["name"] != name:
        raise ValueError(f"it is of {short(header['name'], 100)}")
    shape, dtype = _shape(header["shape"], header["dtype"])
    values, coding, nonzeros = header["values"], header["coding"], header["nonzeros"]
    if values not in BYTES or (values != dtype and BYTES[values] >= BYTES[dtype]):
        raise ValueError(f"its values are {short(values)}")
    pairs = [(_count(whole), _count(stored)) for whole, stored in header["parts"]]
    sizes = [whole for whole, _ in pairs]
    if not sizes or sizes != _sizes(coding, values, shape, _count(nonzeros), sizes[0]):
        raise ValueError(f"its parts are of {short(sizes, 100)} bytes")
    return PackedTensor(
        name=name,
        shape=shape,
        dtype=dtype,
        coding=coding,
        values=values,
        nonzeros=nonzeros,
        parts=_parts(pairs, body),
    )


def _shape(shape: Any, dtype: Any) -> tuple[tuple[int, ...], str]:
    if dtype not in FLOATS:
        raise ValueError(f"its dtype is {short(dtype)}")
    dimensions = tuple(_count(entries) for entries in shape)
    whole = BYTES[dtype] * math.prod(max(entries, 1) for entries in dimensions)
    if len(dimensions) > _MOST_DIMENSIONS or whole > _memory():
        raise ValueError(f"no memory has room for its shape, {short(list(dimensions), 100)}")
    return dimensions, dtype


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{short(number)} is no count")
    return number


def _sizes(
    coding: Any, values: str, shape: tuple[int, ...], nonzeros: int, first: int
) -> list[int]:
    """The bytes of the parts; of gaps as ``first`` says, where that can be."""
    entries = math.prod(shape)
    if nonzeros > entries or (coding == "dense" and nonzeros != entries):
        raise ValueError(f"it keeps {nonzeros:,} of {entries:,} entries")
    masks = {
        "dense": [],
        "bitmask": [-(-entries // 8)],
        "gaps": [min(max(first, nonzeros), nonzeros + entries // ESCAPE)],
    }
    if coding not in masks:
        raise ValueError(f"its coding is {short(coding)}")
    scales = [2 * (shape[0] if shape else 1)] if values == "int8" else []
    return [*masks[coding], *scales, *[nonzeros] * BYTES[values]]


def _parts(pairs: list[tuple[int, int]], body: Array) -> tuple[Part, ...]:
    parts, start = [], 0
    for whole, stored in pairs:
        if stored > whole:
            raise ValueError(f"a part of {whole:,} bytes is stored in {stored:,}")
        parts.append(Part(whole, body[start : start + stored]))
        start += stored
    if start != len(body):
        raise ValueError(f"its parts are {start:,} bytes, and {len(body):,} follow")
    return tuple(parts)


def _memory() -> int:
    """Bytes that this machine has; what no file can mean where that is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 48
