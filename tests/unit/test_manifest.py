"""A manifest tells a complete folder from one that was cut short, or harmed since."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sentei import manifest
from sentei.manifest import MANIFEST


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "checkpoint-5"
    (folder / "inner").mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(bytes(range(200)))
    (folder / "inner" / "empty.txt").touch()
    manifest.write(folder)
    return folder


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARM = {
    "cut": (lambda path: os.truncate(path, 100), "has 100 bytes of 200"),
    "emptied": (lambda path: os.truncate(path, 0), "has 0 bytes of 200"),
    "removed": (Path.unlink, "is missing"),
    "flipped": (flipped, "is not as it was written"),
    "another's": (lambda path: path.write_bytes(bytes(200)), "is not as it was written"),
    "a pipe": (a_pipe, "is no plain file"),
    "a folder": (a_folder, "is no plain file"),
}


@pytest.mark.parametrize(("harm", "said"), HARM.values(), ids=HARM.keys())
def test_a_file_that_was_harmed_is_named(folder, harm, said):
    assert manifest.problems(folder) == []
    harm(folder / "optimizer.pt")
    [problem] = manifest.problems(folder)
    assert problem.startswith("'optimizer.pt'") and said in problem


def test_sizes_alone_are_cheap(folder):
    flipped(folder / "optimizer.pt")
    assert manifest.problems(folder, sums=False) == []
    (folder / "inner" / "empty.txt").unlink()
    assert manifest.problems(folder, sums=False) == ["'inner/empty.txt' is missing"]


BROKEN = [
    "",
    "{",
    "[]",
    "3",
    "null",
    "{}",
    '{"files": 3}',
    '{"files": ["a"]}',
    '{"files": {"optimizer.pt": 1}}',
]
BROKEN += ['{"files": {"optimizer.pt": {"bytes": "x"}}}', '{"files": {"optimizer.pt": {}}}']
BROKEN += ['{"files": {"optimizer.pt": {"bytes": Infinity}}}', "[" * 100_000, "\0\xff"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_damaged_manifest_says_nothing_good(folder, text):
    (folder / MANIFEST).write_text(text, encoding="latin-1")
    assert manifest.problems(folder) == [f"{MANIFEST} is damaged"]


def test_a_folder_without_one_was_cut_short(folder):
    (folder / MANIFEST).unlink()
    [problem] = manifest.problems(folder)
    assert "cut short" in problem
    shutil.rmtree(folder)
    assert manifest.problems(folder)


def test_what_is_beside_does_not_matter(folder):
    (folder / "notes.txt").write_text("mine")
    assert manifest.problems(folder) == []


def test_of_some_files(folder):
    manifest.write(folder, ["inner"])
    assert list(json.loads((folder / MANIFEST).read_text())["files"]) == ["inner/empty.txt"]
    flipped(folder / "optimizer.pt")
    assert manifest.problems(folder) == []


def test_a_manifest_of_an_earlier_state_does_not_survive_a_failure(folder, monkeypatch):
    monkeypatch.setattr(manifest, "sync", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        manifest.write(folder)
    assert not (folder / MANIFEST).exists()
