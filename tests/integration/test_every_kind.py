"""Every kind of task through the whole command: inspect, prune, report, evaluate, resume."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from helpers.kinds import TASKS, THINGS, lines
from sentei import cli

FAST = ["--set", "schedule.every=2", "--set", "score.window=2", "--precision", "fp32"]


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def done(*arguments: object):
    found = sentei(*arguments)
    assert found.exit_code == 0, found.output
    return found


EXPECTED = {
    "tokens": ("token classification", "f1", lambda before, after: after > 0.9),
    "answers": ("question answering", "f1", lambda before, after: after > 0.2),
    "images": ("image classification", "accuracy", lambda before, after: after > 0.8),
    "language": ("language modelling", "perplexity", lambda before, after: after < 0.6 * before),
    "masked-text": ("masked language modelling", "perplexity", lambda before, after: after < 4),
    "summaries": ("summarisation", "rougeL", lambda before, after: after > 0.5),
    "embeddings": ("sentence embeddings", "neighbors@10", lambda before, after: after > 0.6),
}


@pytest.fixture(scope="module", params=TASKS, ids=TASKS)
def run(request, tiny_model, tmp_path_factory):
    """A finished run of each kind: its name, folder and options."""
    folder = tmp_path_factory.mktemp(request.param)
    options = TASKS[request.param](folder, tiny_model)
    options += [*FAST, "--epochs", 4, "--learning-rate", 1e-2]
    options += ["--checkpoints", 2, "--evaluations", 2]
    done("prune", *options, "--sparsity", 0.5, "--out", folder / "run")
    return request.param, folder / "run", options


def read(run: Path) -> dict:
    return json.loads((run / "report.json").read_text())


def sparsities(run: Path) -> list[tuple[int, float]]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["sparsity"]) for line in found]


def test_prune_reports_what_it_did(run):
    name, folder, _ = run
    report = read(folder)
    problem, metric, good = EXPECTED[name]
    assert (report["problem"], report["metric"]) == (problem, metric)
    assert report["pruning"]["pruned"] == round(0.5 * report["pruning"]["prunable"])
    before = report["evaluations"][0]["metrics"]
    assert set(before) == set(report["sparse"]) and "loss" in before
    first = (report["dense"] or before)[metric]
    assert good(first, report["sparse"][metric]), report["sparse"]
    assert "regression" not in report["settings"]  # a setting of another kind
    page = (folder / "report.html").read_text()
    assert problem in page
    said = " ".join(done("report", folder).output.split())
    assert ("(lower is better)" in said) == (metric == "perplexity")


def test_evaluate_and_verify_agree_with_the_report(run):
    _, folder, _ = run
    report = read(folder)
    found = json.loads(done("evaluate", "--model", folder / "model", "--json").stdout)
    assert found["metrics"] == pytest.approx(report["sparse"])
    assert found["zeros"] == report["pruning"]["zeros"]
    assert "FAILS" not in done("verify", folder).output


def test_inspect_tells_without_training(run):
    name, folder, options = run
    report = read(folder)
    found = json.loads(done("inspect", *options, "--sparsity", 0.5, "--json").stdout)
    assert found["steps"] == report["pruning"]["total_steps"]
    assert found["prunable"] == report["pruning"]["prunable"]
    assert found["metric"] == report["metric"]
    assert (found["truncated"] is None) == (name not in ("tokens", "summaries", "embeddings"))
    assert bool(found["features"]) == (name in ("answers", "language", "masked-text"))
    done("inspect", *options)


def test_batches_of_like_length_but_where_all_are_of_one(run):
    name, _, options = run
    found = sentei("inspect", *options, "--group-by-length")
    if name == "images":
        assert found.exit_code == 2 and "--group-by-length: image classification" in found.stderr
    else:
        assert found.exit_code == 0, found.output


@pytest.mark.usefixtures("no_page")
def test_resume_goes_on_bit_for_bit(run, tmp_path):
    _, whole, _ = run
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    checkpoints = sorted(stopped.glob("checkpoints/*"), key=lambda p: int(p.name.split("-")[1]))
    assert len(checkpoints) == 2
    shutil.rmtree(checkpoints[1])
    shutil.rmtree(stopped / "model")
    (stopped / "report.json").unlink()
    done("prune", "--out", stopped, "--resume")
    ours, theirs = (load_file(f / "model" / "model.safetensors") for f in (stopped, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert read(stopped)["sparse"] == pytest.approx(read(whole)["sparse"])
    assert sparsities(stopped) == sparsities(whole)


@pytest.mark.usefixtures("no_page")
def test_a_teacher_takes_part_or_is_refused_before_time_is_spent(run, tmp_path):
    name, folder, options = run
    learning = ["--teacher", folder / "model", "--sparsity", 0.5, "--epochs", 1]
    out = tmp_path / "run"
    if name == "summaries":
        found = sentei("inspect", *options, *learning)
        assert found.exit_code == 2 and "--kind summaries learns from no teacher" in found.stderr
        assert "--set distill=null" in found.stderr
        return
    done("prune", *options, *learning, "--out", out)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    terms = logged[0]["terms"]
    if name == "embeddings":  # its own loss learns the teacher's embeddings; a recipe adds the rest
        assert set(terms) == {"hidden"} and terms["hidden"] > 0
        assert read(out)["settings"]["reference"] == str(folder / "model")
        done("inspect", *options, *learning, "--teacher-cache", tmp_path / "cache")
        return
    assert terms["labels"] > 0 and terms["logits"] > 0
    cached = sentei("inspect", *options, *learning, "--teacher-cache", tmp_path / "cache")
    assert cached.exit_code == 2 and f"not for --kind {name}" in " ".join(cached.stderr.split())


def test_three_classes_of_pairs_on_either_part(tiny_model, tmp_path):
    """Natural language inference as in MNLI, evaluated on two sets."""
    rng = random.Random(0)
    meaning = {"good": "entailment", "bad": "contradiction", "fine": "neutral"}

    def rows(count: int, things: list[str]) -> list[dict]:
        found = []
        for _ in range(count):
            word, thing = rng.choice(list(meaning)), rng.choice(things)
            pair = {"premise": f"the {thing} was good", "hypothesis": f"a {thing} was {word}"}
            found.append(pair | {"label": meaning[word]})
        return found

    train = lines(tmp_path / "train.jsonl", rows(160, THINGS[:2]))
    matched = lines(tmp_path / "matched.jsonl", rows(30, THINGS[:2]))
    mismatched = lines(tmp_path / "mismatched.jsonl", rows(30, THINGS[2:]))
    given = ["--task", "mnli", "--model", tiny_model, "--train", train, "--eval", matched]
    more = ["--epochs", 3, "--learning-rate", 1e-2, "--sparsity", 0.5, "--out", tmp_path / "run"]
    done("prune", *given, *FAST, *more)
    report = read(tmp_path / "run")
    assert report["labels"] == ["contradiction", "entailment", "neutral"]
    model = ["--model", tmp_path / "run" / "model"]
    same = json.loads(done("evaluate", *model, "--json").stdout)
    assert same["metrics"] == pytest.approx(report["sparse"])
    other = ["--task", "mnli_mismatched", "--eval", mismatched]
    told = json.loads(done("evaluate", *model, *other, "--json").stdout)
    assert "mismatched.jsonl" in told["data"]
    assert told["metrics"]["loss"] != same["metrics"]["loss"]
