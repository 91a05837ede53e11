"""Text out of files: encodings, marks of byte order, compression."""

import bz2
import gzip
import lzma
from pathlib import Path

import pyarrow
import pytest

from helpers.data import cells, refused
from sentei.data.formats import Format, read_text, suffix

CSV = "text,label\ngood,pos\nbad,neg\nfine,pos\npoor,neg\n"


def zstd(content):
    packed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quoting": "some"}, "--quoting is 'some'"),
        ({"delimiter": "ab"}, "--delimiter is 'ab'"),
        ({"encoding": "utf-9"}, "--encoding is 'utf-9'"),
    ],
)
def test_formats_that_make_no_sense(options, reason):
    with pytest.raises(ValueError, match=reason):
        Format(**options)


def test_other_encodings(write):
    content = CSV.replace("good", "café")
    for encoding in ("latin-1", "utf-16"):
        path = write("a.csv", content.encode(encoding))
        assert cells(path, encoding=encoding)["text"][0] == "café"


def test_byte_order_mark_before_a_first_cell(write):
    path = write("a.tsv", "\ufeff1\ta\n0\tb\n")
    assert cells(path, header=False) == {"1": ["1", "0"], "2": ["a", "b"]}


def test_bytes_that_are_not_utf8(write):
    path = write("a.csv", b"text,label\na,x\ncaf\xe9,y\n")
    refused(path, str(path), "line 3", "0xe9", "--encoding cp1252", "latin-1")
    refused(write("a.csv", b"\xef\xbb\xbftext,label\n\xe9,y\n"), "line 2", "0xe9")
    refused(write("a.csv", CSV.encode("utf-16")), "line 1", "0xff", "--encoding utf-16")
    packed = write("a.csv.gz", gzip.compress(b"text,label\ncaf\xe9,y\n"))
    refused(packed, "a.csv.gz, line 2", "0xe9")


@pytest.mark.parametrize("outer", PACK)
def test_compressed_text(write, outer):
    path = write(f"a.csv{outer}", PACK[outer](CSV.encode()))
    assert read_text(path, "utf-8") == CSV
    refused(write(f"a.csv{outer}", CSV), f"a.csv{outer} could not be unpacked as {outer} (")
    cut_off = PACK[outer](CSV.encode())[:-5]
    refused(write(f"a.csv{outer}", cut_off), f"a.csv{outer} could not be unpacked as {outer} (")
    refused(write(f"a.csv{outer}", PACK[outer](b"")), f"a.csv{outer} is empty")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", ".csv"),
        ("a.b.JSONL", ".jsonl"),
        ("a.CSV.GZ", ".csv"),
        ("a.conll.xz", ".conll"),
        ("a.gz", ".gz"),
        ("a.parquet.gz", ".gz"),
        ("a", ""),
    ],
)
def test_kinds_of_file_by_name(name, kind):
    assert suffix(Path("some.folder") / name) == kind
