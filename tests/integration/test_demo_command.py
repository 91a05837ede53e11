"""How ``sentei demo`` ends: its own model on the engine, beside torch."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest
from typer.testing import CliRunner

from sentei import cli
from sentei.cli import demo

OPTIONS = ("--set", "schedule.every=2", "--set", "score.window=2")


def command(*arguments: object):
    return CliRunner().invoke(cli.app, ["demo", *map(str, arguments)])


@pytest.fixture(autouse=True)
def tiny(tiny_model, data, monkeypatch):
    """Another model and other data than the packages'."""
    small = {"model": str(tiny_model), "train": data["train"], "eval": data["eval"], "epochs": 2}
    make = demo.make_settings
    monkeypatch.setattr(demo, "make_settings", lambda options, *others: make(small, *others))


def test_the_last_line_and_the_report_have_the_engine_beside_torch(tmp_path):
    for package in ("llvmlite", "jinja2", "matplotlib"):
        pytest.importorskip(package)
    out = tmp_path / "run"
    done = command(*OPTIONS, "--out", out)
    assert done.exit_code == 0, done.output
    last = done.stdout.splitlines()[-1]
    assert re.match(r"Sentei's engine \(\w+\) reads the evaluation texts \S+ times as fast", last)
    assert "ms a text on one thread" in last and "; accuracy " in last

    again = command("--out", out, "--resume", "--json")
    assert again.exit_code == 0, again.output
    speed = json.loads(again.stdout)["speed"]
    assert {one["engine"] for one in speed["engines"]} == {"sentei", "torch"}
    [workload] = speed["workloads"]
    assert (workload["batch"], workload["length"]) == (32, "data")
    assert speed["rounds"] > 1
    assert "<h2>Speed</h2>" in (out / "report.html").read_text()


def test_where_the_engine_cannot_run_it_says_why(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *others: None if name == "llvmlite" else find(name, *others),
    )
    done = command(*OPTIONS, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].endswith("does not run it here: not installed: llvmlite")
