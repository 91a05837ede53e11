"""Bad data files for all kinds of task, as training and as evaluation data."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bad import FILES, INSPECT, SPECIAL, TEXTS, VALUES, Content, attempt
from .trial import Trial
from .world import World

GROUP = "data files, all kinds of task"

ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": f"the film was {w}", "label": w} for w in ("good", "bad")] * 20,
    "tokens": [{"tokens": ["the", "film"], "tags": ["O", "B-thing"]}] * 40,
    "answers": [
        {
            "id": f"{number}",
            "question": "was",
            "context": "the film was good",
            "answers": {"text": ["good"], "answer_start": [13]},
        }
        for number in range(40)
    ],
    "language": [{"text": "the film was good"}] * 200,
    "masked-text": [{"text": "the film was good"}] * 200,
    "summaries": [{"document": "the film was good", "summary": "the film"}] * 40,
}


def trials(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Files of every kind of task and format: odd bytes, odd cells, damaged rows, bombs."""
    for kind in ROWS:
        given = _given(world, kind)
        good = {form: _write(kind, ROWS[kind], form) for form in _forms(kind)}
        for form, data in good.items():
            for what, content in _all(kind, form, data, rng):
                if rng.random() >= share:
                    continue
                train, held = (
                    ("HERE/in", "HERE/ok") if rng.random() < 0.7 else ("HERE/ok", "HERE/in")
                )
                words = [*INSPECT, *given, f"--train={train}.{form}", f"--eval={held}.{form}"]
                files = {f"ok.{form}": data, f"in.{form}": content}
                yield attempt(GROUP, f"{kind}, {form}, {what}", words, files)
    yield from _pictures(world, share, rng)


def _given(world: World, kind: str) -> list[str]:
    """The options of a kind, with its tiny model."""
    more = ("--doc-stride", "4") if kind == "answers" else ()
    return ["--kind", kind, "--model", str(world.model_of(kind)), "--batch-size", "8", *more]


def _forms(kind: str) -> tuple[str, ...]:
    return {
        "classification": ("csv", "tsv", "jsonl", "json"),
        "tokens": ("conll", "jsonl"),
        "answers": ("json", "jsonl", "csv"),
        "language": ("txt", "jsonl"),
        "masked-text": ("txt", "jsonl"),
        "summaries": ("jsonl", "csv"),
    }[kind]


def _write(kind: str, rows: list[dict[str, Any]], form: str) -> bytes:
    """Rows in a format."""
    if form == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows)
    elif form == "json":
        text = json.dumps(rows)
    elif form == "conll":
        text = "\n\n".join(
            "\n".join(f"{t}\t{tag}" for t, tag in zip(row["tokens"], row["tags"], strict=False))
            for row in rows
        )
    elif form == "txt":
        text = "\n".join(str(row["text"]) for row in rows)
    else:
        split = "," if form == "csv" else "\t"
        cells = [list(rows[0]), *(list(map(_cell, row.values())) for row in rows)]
        text = "\n".join(split.join(row) for row in cells)
    return f"{text}\n".encode("utf-8", "surrogatepass")


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",\n\t') else text


def _all(kind: str, form: str, data: bytes, rng: random.Random) -> Iterator[tuple[str, Content]]:
    yield from rng.sample(sorted(FILES.items()), 8)
    yield from rng.sample(sorted(SPECIAL.items(), key=lambda item: item[0]), 3)
    yield from rng.sample(sorted(_bytes(data).items()), 5)
    columns = list(ROWS[kind][0])
    for what in rng.sample(sorted(TEXTS), 9):
        rows = [dict(row) for row in ROWS[kind]]
        column = rng.choice(columns)
        rows[3][column] = TEXTS[what]
        yield f"{column} is {what}", _write(kind, rows, form)
    if form in ("jsonl", "json"):
        for what in rng.sample(sorted(VALUES), 9):
            rows = [dict(row) for row in ROWS[kind]]
            column = rng.choice(columns)
            rows[rng.choice((0, 5))][column] = VALUES[what]
            yield f"{column} is {what}", _write(kind, rows, form)
        yield "a key twice", data.replace(b"{", b'{"text": "x", "text": "y", "label": "z", ', 1)
        yield "half a surrogate", data.replace(b"film", b"\\ud83d", 1)
        yield "a column less", data.replace(f'"{columns[-1]}"'.encode(), b'"else"', 1)
    for number in range(5):
        spoilt = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        yield f"bytes {number}", bytes(spoilt)
    if form in ("csv", "tsv", "conll"):
        yield from _lines(data, rng)


def _bytes(data: bytes) -> dict[str, bytes]:
    """One file written otherwise."""
    text = data.decode()
    return {
        "cut": data[: len(data) // 2 + 3],
        "UTF-16 ": text.encode("utf-16"),
        "UTF-32": text.encode("utf-32"),
        "BOM": b"\xef\xbb\xbf" + data,
        "BOM twice": b"\xef\xbb\xbf" * 2 + data,
        "NUL inside": data[:20] + b"\0" + data[20:],
        "CR": data.replace(b"\n", b"\r"),
        "mixed ends": data.replace(b"\n", b"\r\n", 3),
        "odd blanks": data.replace(b" ", "\u00a0\u2028\u0085\u3000".encode(), 5),
        "one row": b"\n".join(data.split(b"\n")[:2]) + b"\n",
        "escape codes": data.replace(b"film", b"\x1b]0;x\x07\x1b[31m", 3),
        "a long text": data.replace(b"film", b"film " * 400_000, 1),
        "a long word": data.replace(b"film", b"f" * 3_000_000, 1),
        "empty rows": data + b"\n" * 2_000,
        "separators": data.replace(b"film", b"[SEP] [CLS] </s> <pad> <|endoftext|>"),
        "gzip bomb without the name": gzip.compress(b"\0" * (1 << 26)),
    }


def _lines(data: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    rows = data.split(b"\n")
    yield "a cell more", b"\n".join([*rows[:3], rows[3] + b",x\tx", *rows[4:]])
    yield "a cell less", b"\n".join([*rows[:3], b"x", *rows[4:]])
    yield "the header twice", b"\n".join([rows[0], *rows])
    yield "a name twice", b"text,text\n" + b"\n".join(rows[1:])
    yield "no header", b"\n".join(rows[1:])
    yield "a quote open", data.replace(b"the", b'"the', 1)
    yield "sep=", b"sep=;\n" + data
    yield "comments", b"# a comment\n" + data
    yield "many columns", b",".join(b"c%d" % n for n in range(20_000)) + b"\n" + b"," * 19_999
    yield "many labels", rows[0] + b"\n" + b"".join(b"x,l%d\n" % n for n in range(20_000))
    yield "a long header", b"text," + b"l" * 200_000 + b"\nx,y\n"
    yield "escape in the header", b"text,\x1b[31mlabel\nx,y\n"


def compressed(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Compressed files and Parquet: bombs, damage, other contents."""
    good = _write("classification", ROWS["classification"], "csv")
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    words = [*INSPECT, "--model", str(world.model), "--eval", str(world.data["eval"])]
    for ending, pack in packed.items():
        for what, data in {
            "good": pack(good),
            "a bomb": _bomb(pack),
            "cut": pack(good)[:-9],
            "garbage": b"x" * 500,
            "empty": b"",
            "nothing inside": pack(b""),
            "binary inside": pack(FILES["binary"]),
            "twice": pack(pack(good)),
        }.items():
            if rng.random() < share:
                name = f"in.csv.{ending}"
                yield attempt(
                    GROUP, f"{ending}, {what}", [*words, f"--train=HERE/{name}"], {name: data}
                )
    for ending in ("parquet", "arrow", "zip", "xlsx", "pkl", "npy", "pt", "csv.zst", "zzz", ""):
        for what in ("empty", "binary", "pickle", "zip", "text"):
            if rng.random() < share:
                name = f"in.{ending}"
                data = _zip(good) if what == "zip" else FILES[what]
                yield attempt(
                    GROUP, f"{ending}, {what}", [*words, f"--train=HERE/{name}"], {name: data}
                )


def _bomb(pack):
    """A small file of 256 MiB of text."""
    return lambda path: path.write_bytes(pack(b"text,label\n" + b"a" * (1 << 28))) and None


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../up.csv", data)
    return file.getvalue()


def _pictures(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Images that are none, or are too much."""
    words = [*INSPECT, *_given(world, "images"), "--train", "HERE/images"]
    for what, data in [*FILES.items(), *_images().items()]:
        if rng.random() < share:
            files = {"images/train/odd/0.png": data}
            before = _folder_of_images(world)
            yield attempt(GROUP, f"images, {what}", words, files, before=before)


def _folder_of_images(world: World):
    def act(place: Path) -> None:
        for kind, shade in (("dark", 40), ("light", 210)):
            for split, count in (("train", 6), ("validation", 2)):
                for number in range(count):
                    path = place / "images" / split / kind / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(_png("RGB", (20, 20), (shade, shade, shade)))

    return act


def _images() -> dict[str, bytes]:
    good = _png("RGB", (20, 20), (9, 9, 9))
    header = bytearray(good)
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    return {
        "cut": good[:40],
        "flipped": good[:-20] + bytes(20),
        "a bomb by its header": bytes(header),
        "a bomb": _big(20_000),
        "a pixel": _png("RGB", (1, 1), 0),
        "a line": _png("RGB", (5_000, 1), 0),
        "16 bit": _png("I;16", (20, 20), 999),
        "palette": _png("P", (20, 20), 1),
        "LA": _png("LA", (20, 20), (1, 2)),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    }


def _big(side: int) -> bytes:
    """A black square of one bit a pixel, without the memory that it takes to draw it."""
    compress = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    body = b"".join(compress.compress(row) for _ in range(side)) + compress.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _png(mode: str, size: tuple[int, int], color: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size, color).save(file, "png")
    return file.getvalue()
