"""Damaged, foreign and hostile bytes: refused with the tensor's name, and no memory taken."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import zstandard

from sentei.pack import encode
from sentei.pack.format import from_bytes, to_bytes

NAME = "encoder.layer.0.output.weight"
HUGE = 1 << 46


def sparse(shape=(20, 300), density=0.1):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * (rng.random(shape) < density) + 0.0).astype(np.float32)


def record(coding="gaps", kind="bf16", *, compress=False):
    return to_bytes(encode(NAME, sparse(), kind=kind, coding=coding, compress=compress))


def opened(whole):
    """The header and the parts of a record."""
    size = int.from_bytes(whole[40:44].tobytes(), "little")
    header = json.loads(whole[44 : 44 + size].tobytes())
    parts, at = [], 44 + size
    for _, stored in header["parts"]:
        parts.append(whole[at : at + stored].tobytes())
        at += stored
    return header, parts


def sealed(header, parts, *, version=1):
    """A record with a right checksum, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    tail = len(text).to_bytes(4, "little") + text + b"".join(parts)
    head = b"sentei" + version.to_bytes(2, "little") + hashlib.sha256(tail).digest()
    return np.frombuffer(head + tail, np.uint8)


def refused(whole, *, decode=False):
    """The sentence; nothing large was allocated before it."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            found = from_bytes(NAME, whole)
            assert decode, "it was read"
            found.decode()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert said.startswith(NAME) and len(said) < 400 and "\n" not in said
    return said


def test_a_forged_record_is_read():
    """So that the tests below are refused for what they change."""
    whole = record()
    forged = from_bytes(NAME, sealed(*opened(whole)))
    assert np.array_equal(forged.decode(), from_bytes(NAME, whole).decode())


@pytest.mark.parametrize("size", [0, 5, 43, 44, 100, 300, -1])
def test_what_is_cut_short(size):
    assert "cut short" in refused(record()[:size]) or "checksum" in refused(record()[:size])


def test_every_flipped_bit():
    whole = record(compress=True)
    for at in range(len(whole)):
        harmed = whole.copy()
        harmed[at] ^= 1 << at % 8
        said = refused(harmed)
        assert "checksum" in said or "version" in said or "no packed tensor" in said


def test_what_is_longer_than_it_should_be():
    assert "checksum" in refused(np.append(record(), np.uint8(0)))
    header, parts = opened(record())
    assert "bytes, and" in refused(sealed(header, [*parts, b"more"]))


def test_another_tensors():
    other = to_bytes(encode("encoder.layer.1.output.weight", sparse()))
    assert refused(other).endswith("it is of 'encoder.layer.1.output.weight')")


def test_what_is_foreign():
    assert "no packed tensor" in refused(np.frombuffer(b"PK\3\4" + bytes(100), np.uint8))
    with pytest.raises(ValueError, match="no packed tensor"):
        from_bytes(NAME, np.zeros((4, 4), np.float32))


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_another_version(version):
    said = refused(sealed(*opened(record()), version=version))
    assert f"version {version} of the format" in said and "install the Sentei" in said


HEADERS = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"3",
    "a list": b"[]",
    "deep": b"[" * 5000,
    "not UTF-8": b'{"name": "\xff"}',
    "a key less": lambda one: one.pop("shape"),
    "a key more": lambda one: one.update(more=1),
    "name no text": lambda one: one.update(name=3),
    "dtype unknown": lambda one: one.update(dtype="fp8"),
    "dtype int8": lambda one: one.update(dtype="int8", values="int8"),
    "dtype a list": lambda one: one.update(dtype=["fp32"]),
    "values wider": lambda one: one.update(values="fp64"),
    "values of the same bytes": lambda one: one.update(dtype="fp16"),
    "values unknown": lambda one: one.update(values="int4"),
    "values a mapping": lambda one: one.update(values={}),
    "coding unknown": lambda one: one.update(coding="runs"),
    "coding null": lambda one: one.update(coding=None),
    "shape a number": lambda one: one.update(shape=6000),
    "shape negative": lambda one: one.update(shape=[-20, -300]),
    "shape of fractions": lambda one: one.update(shape=[20.0, 300]),
    "shape of truths": lambda one: one.update(shape=[True, 6000]),
    "shape of text": lambda one: one.update(shape=["20", "300"]),
    "shape huge": lambda one: one.update(shape=[HUGE, 4]),
    "shape of 400 digits": lambda one: one.update(shape=[10**400]),
    "shape huge and empty": lambda one: one.update(shape=[HUGE, 0], nonzeros=0),
    "shape of many dimensions": lambda one: one.update(shape=[20, 300] + [1] * 20),
    "fewer entries": lambda one: one.update(shape=[20]),
    "keeps more": lambda one: one.update(nonzeros=one["nonzeros"] + 1),
    "keeps more than there are": lambda one: one.update(nonzeros=6001),
    "keeps huge": lambda one: one.update(nonzeros=HUGE),
    "keeps less than none": lambda one: one.update(nonzeros=-1),
    "no parts": lambda one: one.update(parts=[]),
    "parts a number": lambda one: one.update(parts=3),
    "parts of one": lambda one: one.update(parts=[[3]]),
    "parts of three": lambda one: one["parts"].append([1, 1]),
    "a part less": lambda one: one["parts"].pop(),
    "a part huge": lambda one: one["parts"][0].__setitem__(0, HUGE),
    "a part stored in more": lambda one: one["parts"][1].__setitem__(1, one["parts"][1][0] + 1),
    "a part stored in less": lambda one: one["parts"][-1].__setitem__(1, 0),
}


@pytest.mark.parametrize("coding", ["dense", "bitmask", "gaps"])
@pytest.mark.parametrize("case", HEADERS)
def test_headers(case, coding):
    header, parts = opened(record(coding))
    change = HEADERS[case]
    if isinstance(change, bytes):
        said = refused(sealed(change, parts))
    else:
        change(header)
        said = refused(sealed(header, parts))
    assert said.startswith(f"{NAME}: its header is wrong (")


def test_the_length_of_the_header():
    whole = record().copy()
    for length in (len(whole), 2**31, 2**32 - 1):
        whole[40:44] = np.frombuffer(length.to_bytes(4, "little"), np.uint8)
        whole[8:40] = np.frombuffer(hashlib.sha256(whole[40:].data).digest(), np.uint8)
        assert f"claims {length:,} bytes" in refused(whole)


def test_masks_that_do_not_fit():
    header, [mask, *planes] = opened(record("gaps"))
    mask = bytearray(mask)
    mask[-1] = 254
    for _ in range(30):  # beyond the end
        mask[mask.index(min(mask))] = 254
    assert "beyond its end" in refused(sealed(header, [mask, *planes]), decode=True)
    mask = bytearray(opened(record("gaps"))[1][0])
    mask[-1] = 255
    kept = header["nonzeros"]
    said = refused(sealed(header, [mask, *planes]), decode=True)
    assert f"keeps {kept - 1:,} entries of {kept:,}" in said
    header, [mask, *planes] = opened(record("bitmask"))
    mask = bytearray(mask)
    empty = mask.index(0)
    mask[empty] = 1
    assert "keeps more than" in refused(sealed(header, [mask, *planes]), decode=True)
    odd = to_bytes(encode(NAME, sparse((3, 5), 0.5), coding="bitmask", compress=False))
    header, [mask, *planes] = opened(odd)
    mask = bytes([mask[0], mask[1] | 0x80])
    header["nonzeros"] += 1
    header["parts"] = [[2, 2], *[[header["nonzeros"]] * 2] * 2]
    said = refused(sealed(header, [mask, *(plane + b"\0" for plane in planes)]), decode=True)
    assert "beyond its end" in said


def test_frames_that_lie():
    header, [mask, low, high] = opened(record("gaps"))
    size = len(low)

    def with_frame(frame):
        header["parts"][1] = [size, len(frame)]
        return refused(sealed(header, [mask, frame, high]), decode=True)

    frame = zstandard.ZstdCompressor().compress
    assert "holds 100 bytes where" in with_frame(frame(bytes(100)))
    assert f"holds {2**24:,} bytes where" in with_frame(frame(bytes(2**24)))
    assert "damaged" in with_frame(frame(bytes(size))[:-1])
    assert "damaged" in with_frame(frame(bytes(size)) + b"more")
    assert "damaged" in with_frame(b"noise")
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(size))
    assert "bytes where" in with_frame(unsized)
