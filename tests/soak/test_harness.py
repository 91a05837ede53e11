"""The harness itself can find what it looks for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.soak.bad import mutants
from tests.soak.fork import MEMORY, Ended
from tests.soak.same import difference
from tests.soak.trial import faults_of

ROOT = Path(__file__).parents[2]


def ended(code=0, err="", out="", words=("inspect",), **more) -> Ended:
    fields = {"seconds": 1.0, "memory": 400, "notes": (), "hung": False} | more
    return Ended(words=words, code=code, out=out, err=err, **fields)


@pytest.mark.parametrize(
    "fault, how",
    [
        ("traceback", ended(1, "Traceback (most recent call last)\n  ...\nKeyError: 'x'\n")),
        ("hang", ended(-9, hung=True)),
        ("crash", ended(-11)),
        ("status", ended(3, "Error: x: y")),
        ("silent", ended(2)),
        ("long", ended(2, "Error: " + "x" * 3_000)),
        ("obscure", ended(1, "Aborted!\n")),
        ("obscure", ended(1, "Error: [Errno 22] Invalid argument\n")),
        ("raw", ended(0, out="a\x1b[31m")),
        ("raw", ended(2, "Error: a\u202eb: no\n")),
        ("raw", ended(2, "Error: a\rb: no\n")),
        ("no JSON", ended(2, "Error: a: no\n", words=("inspect", "--json"))),
        ("memory", ended(memory=MEMORY + 1)),
        ("executed", ended(notes=("executed: os.system ls",))),
    ],
)
def test_a_fault_has_its_name(fault, how):
    found = faults_of(how)
    assert [one.partition(":")[0] for one in found] == [fault]


def test_a_result_and_a_sentence_are_as_they_should_be():
    bar = "\rWriting model shards: 100%|████| 1/1 [00:00<00:00, 451.78it/s]\n"
    assert faults_of(ended(0, bar, "fine\n")) == []
    assert faults_of(ended(2, "Error: --epochs 0: should be greater than 0\n")) == []
    assert faults_of(ended(2, '{"error": "x"}', '{"error": "x"}', ("verify", "--json"))) == []


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    save_file({"w": torch.tensor([0.0, 1.0])}, folder / "model" / "model.safetensors")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    (folder / "report.json").write_text('{"created": "now", "pruning": {"pruned": 1}}')
    (folder / "recipe.yaml").write_text("a: 1\n")
    (folder / "run.yaml").write_text("b: 1\n")
    return folder


@pytest.mark.parametrize(
    "file, content",
    [
        ("metrics.jsonl", '{"step": 1, "loss": 0.25}\n'),
        ("metrics.jsonl", ""),
        ("metrics.jsonl", None),
        ("report.json", '{"created": "later", "pruning": {"pruned": 2}}'),
        ("report.json", "{"),
        ("recipe.yaml", "a: 2\n"),
        ("model/model.safetensors", "x"),
        ("model/model.safetensors", None),
    ],
)
def test_a_difference_is_found(run, tmp_path, file, content):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert difference(other, run) == ""
    (other / file).unlink() if content is None else (other / file).write_text(content)
    assert difference(other, run).startswith(file)


def test_minus_zero_is_another_number(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    weights = load_file(other / "model" / "model.safetensors")
    save_file({"w": weights["w"] * torch.tensor([-1.0, 1.0])}, other / "model/model.safetensors")
    assert difference(other, run) == "model/model.safetensors: w differs"


SCRIPT = """
import os, sys
from pathlib import Path
from tests.soak.trap import Trap

folder = Path(sys.argv[1])
trap = Trap(folder, int(sys.argv[2]), sys.argv[3])
trap.arm()
(folder / "first").write_text("12345678")
with (folder / "synced").open("w") as file:
    file.write("12345678")
    file.flush()
    os.fsync(file.fileno())
os.replace(folder / "first", folder / "second")
(folder.parent / "elsewhere").write_text("not counted")
(folder / "third").write_text("12345678")
trap.end()
"""


@pytest.mark.parametrize(
    "at, how, left",
    [
        (0, "before", {}),
        (0, "half", {"first": 4}),
        (0, "empty", {"first": 0}),
        (3, "before", {"first": 8, "synced": 8}),
        (4, "power", {"second": 4, "synced": 8}),
        (4, "half", {"second": 8, "synced": 8, "third": 4}),
        (9, "before", {"second": 8, "synced": 8, "third": 8}),
    ],
)
def test_the_trap_ends_a_process_at_a_write(tmp_path, at, how, left):
    folder = tmp_path / "watched"
    folder.mkdir()
    words = [sys.executable, "-c", SCRIPT, str(folder), str(at), how]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if at == 9 else -9), done.stderr
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == left


def test_mutants_are_the_same_for_a_seed():
    import random

    first, again, other = (list(mutants("a: 1\nb: 2", 20, random.Random(s))) for s in (1, 1, 2))
    assert first == again != other
