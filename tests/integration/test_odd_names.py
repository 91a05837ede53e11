"""A whole run among names that a terminal or rich would obey, or that are no Unicode."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from typer.testing import CliRunner

from sentei import cli

NAMES = ["[/x]", "[bold]x", "\x1b[31mx", ":bomb: x\ry", "x\u202ey"]
FAST = ["--method", "magnitude", "--set", "schedule.every=1"]
LABELS = {"bad": "[/nope]", "good": "\x1b]0;x\x07[red]"}


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def is_clean(text: str) -> bool:
    return not {"\x1b", "\x07", "\r", "\u202e"} & {*text}


@pytest.fixture(params=NAMES, ids=ascii)
def options(request, tmp_path, tiny_model):
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    shutil.copytree(tiny_model, folder / "model")
    rows = [{"te[/]xt": f"the film was {word}", "label": LABELS[word]} for word in LABELS]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows * 20)
    for name in ("train", "eval"):
        (folder / f"{name}.jsonl").write_text(lines)
    words = {"--model": folder / "model", "--text-column": "te[/]xt", "--epochs": 1}
    words |= {"--train": folder / "train.jsonl", "--eval": folder / "eval.jsonl"}
    return folder, [word for pair in words.items() for word in pair]


def test_they_are_shown_before_training(options):
    _, words = options
    done = sentei("inspect", *words, *FAST, "--set", r'method="[/m]\x1b"')
    assert done.exit_code == 0, done.output
    assert is_clean(done.output) and "[/nope]" in done.output and "[/m]" in done.output


def test_they_are_shown_after_it(options):
    folder, words = options
    out = folder / "[/run]"
    made = [*FAST, "--out", out]
    done = sentei("prune", *words, *made)
    assert done.exit_code == 0, done.output
    for command in (["report", out], ["verify", out], ["evaluate", "--model", out / "model"]):
        done = sentei(*command)
        assert done.exit_code == 0 and is_clean(done.output), done.output
        assert json.loads(sentei(*command, "--json").stdout)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<x]" not in page and "[/nope]" in page


def test_a_folder_whose_name_is_no_unicode_is_refused_before_training(tmp_path, tiny_model, data):
    """Weights cannot be written there."""
    out = tmp_path / os.fsdecode(b"run \xff")
    words = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    words += ["--epochs", 1, *FAST, "--out", out]
    for done in (sentei("prune", *words), sentei("shrink", tiny_model, "--out", out)):
        assert done.exit_code == 2 and r"run \udcff: its name is not UTF-8" in done.stderr
        assert not out.exists()


def test_data_in_a_file_whose_name_is_no_unicode(tmp_path, tiny_model, data):
    try:
        train = shutil.copy(data["train"], tmp_path / os.fsdecode(b"train \xff.jsonl"))
    except OSError:
        pytest.skip("this disk has no such names")
    words = ["--model", tiny_model, "--train", train, "--eval", data["eval"]]
    words += [*FAST, "--epochs", 1]
    done = sentei("prune", *words, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    shown = sentei("report", tmp_path / "run", "--json")
    assert json.loads(shown.stdout)["settings"]["train"].endswith("train \udcff.jsonl")
    assert sentei("prune", "--out", tmp_path / "run", "--resume").exit_code == 0
