"""Comparisons as users meet them: many workers, stopped ones, killed ones, wrong ones."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers.comparing import ENTRY, LONG, begun, checkpoints, compare, small_plan, wait_for, write
from helpers.processes import Command
from sentei import SenteiWarning
from sentei import report as reports
from sentei.cli import comparison
from sentei.compare import child, execute
from sentei.compare.folder import begin
from sentei.compare.worker import Worker
from sentei.run.settings import Settings

pytestmark = pytest.mark.usefixtures("no_pages")


@pytest.fixture(scope="module")
def small(tiny_model, data):
    """Makes plans: one task, the recipe ``magnitude``, one sparsity, one seed."""
    return partial(small_plan, tiny_model, data)


process = partial(Command, "compare")


def results(out: Path) -> dict[str, float]:
    found = json.loads((out / "compare.json").read_text())
    return {run["folder"]: run["value"] for run in found["runs"]}


# ---------------------------------------------------------------------------- several workers


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A comparison that two workers made, this process and another, with what each of them said."""
    folder = tmp_path_factory.mktemp("compared")
    plan = small(settings={"dense_epochs": 1})
    plan["recipes"]["uniform"] = {**ENTRY, "set": [*ENTRY["set"], "budget=uniform"]}
    file, out = write(plan, folder), folder / "out"
    other = process(file, "--out", out)
    wait_for(lambda: (out / "runs").is_dir())
    done = compare(file, "--out", out)
    told = other.wait().err
    assert (done.exit_code, other.code) == (0, 0), (done.output, told)
    return file, out, [done.stderr, told]


NAMES = {"start/seed1", "dense/seed1", "magnitude/0.8/seed1", "uniform/0.8/seed1"}


def test_two_workers_make_every_run_once(finished):
    _, out, told = finished
    assert Counter(begun("".join(told))) == {f"runs/words/{name}": 1 for name in NAMES}
    for name in NAMES:
        assert (out / "runs/words" / name / "model" / "model.safetensors").is_file()
        assert not (out / "runs/words" / name / "checkpoints").exists()


def test_a_worker_takes_what_another_leaves(small, tmp_path):
    """Each has a part: the other is held at its first run until this one has begun the second."""
    plan, out = small(), tmp_path / "out"
    plan["recipes"]["uniform"] = {**ENTRY, "set": [*ENTRY["set"], "budget=uniform"]}
    file, runs = write(plan, tmp_path), out / "runs"
    other = process(file, "--out", out)
    wait_for(lambda: list(runs.rglob("run.yaml")))
    other.send(signal.SIGSTOP)
    first = {path.parent for path in runs.rglob("run.yaml")}

    def let_go() -> None:
        wait_for(lambda: {path.parent for path in runs.rglob("run.yaml")} - first)
        other.send(signal.SIGCONT)

    letting = threading.Thread(target=let_go)
    letting.start()
    done = compare(file, "--out", out)
    letting.join()
    told = other.wait().err
    assert (done.exit_code, other.code) == (0, 0), (done.output, told)
    names = {"dense/seed1", "magnitude/0.8/seed1", "uniform/0.8/seed1"}
    assert Counter(begun(done.stderr + told)) == {f"runs/words/{name}": 1 for name in names}
    assert begun(done.stderr) and begun(told)


def test_every_number_is_that_of_its_folder(finished):
    _, out, _ = finished
    found = json.loads((out / "compare.json").read_text())
    assert len(found["runs"]) == len(NAMES)
    started = json.loads((out / "runs/words/start/seed1/report.json").read_text())
    for entry in found["runs"]:
        report = json.loads((out / entry["folder"] / "report.json").read_text())
        assert entry["value"] == report["sparse"]["accuracy"] and entry["state"] == "done"
        if entry["recipe"] != "start":  # measured once, where it was made
            assert report["dense"] == started["sparse"]
        pruning = report["pruning"]
        assert entry["measured"] == pruning["pruned"] / pruning["prunable"]
    page = (out / "compare.html").read_text()
    assert "uniform" in page and "<svg" in page and "http" not in page.replace("http-equiv", "")


def test_one_worker_gets_the_same_numbers(finished, tmp_path):
    """Whatever ran in a process before a run, and whoever trained the dense model."""
    file, out, _ = finished
    done = compare(file, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert results(tmp_path / "out") == results(out)


def test_what_is_done_is_not_done_again(finished):
    file, out, _ = finished
    reports = {path: path.stat().st_mtime_ns for path in out.rglob("report.json")}
    for arguments in ([], [file], ["--report"]):
        done = compare(*arguments, "--out", out)
        assert done.exit_code == 0 and begun(done.stderr) == [], done.output
        assert "4 of 4 runs are done" in done.output
    assert {path: path.stat().st_mtime_ns for path in reports} == reports


def test_a_plan_may_add_and_not_change(finished, tmp_path):
    file, out, _ = finished
    plan = yaml.safe_load(file.read_text())
    less = {**plan, "recipes": {"magnitude": ENTRY}}
    other = {**plan, "settings": {**plan["settings"], "epochs": 2}}
    for changed, message in (
        (less, "uniform/0.8/seed1 is done, and the plan now leaves it out"),
        (other, "dense/seed1 is done with epochs=3.0, and the plan now says 2.0"),
    ):
        done = compare(write(changed, tmp_path), "--out", out)
        assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")
    plan["recipes"]["random"] = {"method": "random", "set": ["schedule.every=2"]}
    done = compare(write(plan, tmp_path), "--out", out)
    assert done.exit_code == 0, done.output
    assert begun(done.stderr) == ["runs/words/random/0.8/seed1"]


def test_only_some_runs(small, tmp_path):
    file, out = write(small(settings={"dense_epochs": 1}), tmp_path), tmp_path / "out"
    done = compare(file, "--out", out, "--only", "*/magnitude/*")
    assert done.exit_code == 0, done.output
    assert begun(done.stderr) == ["runs/words/start/seed1", "runs/words/magnitude/0.8/seed1"]
    done = compare("--out", out)
    assert begun(done.stderr) == ["runs/words/dense/seed1"]
    done = compare("--out", out, "--only", "words/movement/*")
    assert done.exit_code == 2 and "names no run" in done.stderr


def test_a_teacher_that_is_not_needed(small, tmp_path):
    """Classes are learnt from the model that pruning starts from, numbers from the labels alone."""
    rows = [{"text": f"good {i}", "label": float(i % 5)} for i in range(64)]
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train": str(numbers), "eval": str(numbers)}
    tasks = {"words": {}, "numbers": {**files, "regression": True}}
    auto = {"method": "auto", "set": ["schedule.every=2", "score.window=2"]}
    plan = small(settings={"dense_epochs": 1}, tasks=tasks, recipes={"auto": auto})
    out = tmp_path / "out"
    done = compare(write(plan, tmp_path), "--out", out, "--only", "*/auto/*")
    assert done.exit_code == 0, done.output
    told = [reports.read(out / f"runs/{task}/auto/0.8/seed1").settings for task in tasks]
    assert told[0]["teacher"] == "self" and "hidden" in told[0]["learns"]
    assert told[1]["teacher"] == "none: the recipe learns numbers from the labels alone"
    plan["recipes"]["auto"] = {**auto, "teacher": "dense"}
    refused = compare(write(plan, tmp_path), "--out", tmp_path / "named")
    assert refused.exit_code == 2 and not (tmp_path / "named").exists()
    assert "runs/numbers/auto/0.8/seed1: --teacher " in " ".join(refused.stderr.split())


# ------------------------------------------------------------------------- stopped and killed


class Began(TrainerCallback):
    """Notes the step at which each training began."""

    def __init__(self):
        self.steps: list[int] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)


class PressesCtrlC(comparison.ProgressBar):
    """Presses Ctrl-C at the 15th step."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 15:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def interrupted(small, tmp_path_factory):
    """One worker stopped by Ctrl-C, the next one killed, the last one done; in the same run."""
    folder = tmp_path_factory.mktemp("interrupted")
    file = write(small(settings=LONG), folder)
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", SenteiWarning)  # that training stopped is what is wanted
        patch.setattr(comparison, "ProgressBar", PressesCtrlC)
        first = compare(file, "--out", out)
    stopped = checkpoints(out)
    second = process("--out", out, "--patience", 2)
    wait_for(lambda: checkpoints(out) - stopped)
    second.send(signal.SIGKILL)
    second.wait()
    assert not (out / "runs/words/dense/seed1/report.json").exists()

    steps = Began()
    third = Worker(begin(None, out), patience=2.0, watch=lambda prepared: [steps])
    assert third.work()
    return out, first, stopped, steps.steps


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(interrupted):
    out, first, stopped, _ = interrupted
    assert first.exit_code == 130
    assert f"sentei compare --out {out}" in first.stderr.replace("\n", "")
    assert any("checkpoint-16" in str(path) for path in stopped)  # the step after the key


def test_a_killed_workers_run_is_taken_over_from_its_checkpoint(interrupted):
    """While it could still be alive, the other run is made."""
    steps = sorted(interrupted[3])
    assert len(steps) == 2 and steps[0] == 0 and steps[1] > 15


def test_what_was_stopped_and_killed_ends_in_the_same_bits(interrupted, tmp_path):
    out = interrupted[0]
    ours = out / "runs/words/dense/seed1"
    execute.run_here(tmp_path / "whole", Settings.read(ours / "run.yaml"), lambda prepared: ())
    a, b = (load_file(f / "model/model.safetensors") for f in (ours, tmp_path / "whole"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_stopped_workers_run_is_taken_over_and_stays_the_others(small, tmp_path):
    """It wakes up in the middle of a training that another has finished meanwhile."""
    file, out = write(small(settings=LONG), tmp_path), tmp_path / "out"
    stopped = process(file, "--out", out, "--patience", 2)
    wait_for(lambda: checkpoints(out))
    stopped.send(signal.SIGSTOP)
    done = compare(file, "--out", out, "--patience", 2)
    assert done.exit_code == 0 and "runs/words/dense/seed1" in begun(done.stderr), done.output
    before = written(out)
    stopped.send(signal.SIGCONT)
    told = stopped.wait().err
    assert stopped.code == 0, told
    assert "another process may have taken" in " ".join(told.split())
    assert begun(told) == ["runs/words/dense/seed1"]
    assert written(out) == before


def written(out: Path) -> dict[Path, int]:
    """When each file of the runs was written, but for a lock that the last to leave takes away."""
    files = (path for path in (out / "runs").rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_run_in_a_process_of_its_own(interrupted, small, tmp_path):
    """Added to what is there, so that one run is left to make."""
    out = interrupted[0]
    plan = small(settings=LONG)
    plan["recipes"]["random"] = {**ENTRY, "method": "random", "settings": {"epochs": 3}}
    done = compare(write(plan, tmp_path), "--out", out, "--launch", sys.executable)
    assert done.exit_code == 0, done.output
    assert begun(done.stderr) == ["runs/words/random/0.8/seed1"]
    folder = out / "runs/words/random/0.8/seed1"
    assert (folder / "log.txt").is_file() and (folder / "report.html").is_file()


def listening() -> tuple[int, int]:
    """A process that does nothing but listen to its worker, and the worker's end of the pipe."""
    ours, theirs = os.pipe()
    number = os.fork()
    if number == 0:
        os.dup2(ours, 0)
        os.close(theirs)
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        child._listen()
    os.close(ours)
    return number, theirs


def test_a_launched_run_stops_when_it_is_told_and_when_its_worker_is_gone():
    for word, status in ((b"s", 130), (b"", 1)):
        number, pipe = listening()
        os.write(pipe, word)
        if not word:
            os.close(pipe)
        assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == status


# ------------------------------------------------------------------------------------ failures


def test_a_run_that_fails_ends_nothing_and_is_tried_again(small, tmp_path):
    plan = small()
    plan["recipes"] = {"wild": {**ENTRY, "settings": {"learning_rate": 1e14}}, "magnitude": ENTRY}
    file, out = write(plan, tmp_path), tmp_path / "out"
    done = compare(file, "--out", out)
    assert done.exit_code == 1 and "2 of 3 runs are done, 1 failed" in done.output
    assert begun(done.stderr)[-1] == "runs/words/magnitude/0.8/seed1"
    wild = out / "runs/words/wild/0.8/seed1"
    assert "Traceback" in (wild / "error.txt").read_text()
    found = json.loads((out / "compare.json").read_text())
    [failed] = [run for run in found["runs"] if run["state"] == "failed"]
    assert failed["recipe"] == "wild" and failed["error"]
    again = compare("--out", out)
    assert again.exit_code == 1 and begun(again.stderr) == ["runs/words/wild/0.8/seed1"]


def test_what_cannot_run_is_refused_before_anything_does(small, tmp_path):
    plan = small(recipes={"magnitude": {"method": "magnitude", "set": ["schedule.every=1000"]}})
    done = compare(write(plan, tmp_path), "--out", tmp_path / "out")
    assert done.exit_code == 2 and "holds no multiple of it" in done.stderr.replace("\n", " ")
    assert "runs/words/magnitude/0.8/seed1" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_help():
    done = compare("--help")
    assert done.exit_code == 0 and "--patience" in done.output and "--holdout" not in done.output


def test_bad_options(small, data, tiny_model, tmp_path):
    file, out = write(small(), tmp_path / "plan"), tmp_path / "out"
    options = ["--model", tiny_model, "--train", data["train"]]
    foreign = tmp_path / "plan"
    for arguments, message in (
        ([file, "--epochs", 3], "says it all"),
        (options, "--method is missing"),
        (["--method", "l0", "--train", data["train"]], "--model is missing"),
        ([*options, "--method", "plato"], "did you mean 'platon'?"),
        ([], "no comparison was begun here"),
        ([file, "--report"], "leave out the plan"),
    ):
        done = compare(*arguments, "--out", out)
        assert done.exit_code == 2 and message in done.stderr.replace("\n", " "), done.output
        assert not out.exists()
    done = compare(file, "--out", foreign)
    assert done.exit_code == 2 and "the folder is not empty" in done.stderr


def test_ranges_without_optuna(small, distinct, tmp_path, monkeypatch):
    for name in [
        name for name in sys.modules if name.startswith(("sentei.compare.ranges", "optuna."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    plan = small(settings=distinct)
    plan["search"] = {"settings": {"learning_rate": {"low": 1e-4, "high": 1e-2}}, "trials": 2}
    done = compare(write(plan, tmp_path), "--out", tmp_path / "out")
    assert done.exit_code == 2 and "pip install 'sentei[search]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_all_but_ranges_without_optuna(finished, monkeypatch):
    _, out, _ = finished
    ours = [name for name in sys.modules if name.startswith(("sentei.compare.", "optuna."))]
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = compare("--out", out)
    assert done.exit_code == 0 and "runs are done" in done.output, done.output


# -------------------------------------------------------------------------------------- search


@pytest.fixture
def distinct(tmp_path, data) -> dict[str, str]:
    """The files of ``data`` with a number in every text, so that no two are the same."""
    train = [json.loads(line) for line in data["train"].read_text().splitlines()]
    lines = [json.dumps({**row, "text": f"{row['text']} {i}"}) for i, row in enumerate(train)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    lines = [
        f"{line.replace(',', ' e' + str(i) + ',')}"
        for i, line in enumerate(data["eval"].read_text().splitlines()[1:])
    ]
    (tmp_path / "eval.csv").write_text("\n".join(["text,label", *lines]))
    return {"train": str(tmp_path / "train.jsonl"), "eval": str(tmp_path / "eval.csv")}


def test_search(small, distinct, tmp_path, monkeypatch):
    """Trials are trained and judged on training data alone; what they chose is used."""
    seen = []

    def prepare(settings):
        prepared = run_prepare(settings)
        corpus = prepared.corpus
        seen.append((settings.task.holdout, set(corpus.train.texts), set(corpus.evaluation.texts)))
        return prepared

    run_prepare = execute.prepare
    monkeypatch.setattr(execute, "prepare", prepare)
    plan = small(settings={**distinct, "dense_epochs": 1})
    plan["search"] = {"settings": {"learning_rate": [1e-4, 1e-2]}, "part": 0.25}
    file, out = write(plan, tmp_path), tmp_path / "out"
    done = compare(file, "--out", out)
    assert done.exit_code == 0, done.output

    training, evaluation = set[str](), set[str]()
    for holdout, train, judged in seen:
        if holdout is None:
            training |= train
            evaluation |= judged
    searching = [(train, judged) for holdout, train, judged in seen if holdout]
    assert len(searching) == 3  # the start of the trials, and two of them
    assert len(evaluation) == 40 and not evaluation & training
    for train, judged in searching:
        assert train | judged == training and not train & judged and len(judged) == 40
    assert len({frozenset(judged) for _, judged in searching}) == 1

    [found] = json.loads((out / "compare.json").read_text())["searches"]
    assert [trial["values"]["learning_rate"] for trial in found["trials"]] == [1e-4, 1e-2]
    values = [trial["value"] for trial in found["trials"]]
    best = found["trials"][values.index(max(values))]["values"]
    pruned = Settings.read(out / "runs/words/magnitude/0.8/seed1/run.yaml")
    assert found["chosen"] == best == {"learning_rate": pruned.training.learning_rate}
    assert pruned.task.holdout is None
    assert Settings.read(out / "runs/words/dense/seed1/run.yaml").training.learning_rate == 1e-2
    assert not list(out.glob("search/words/magnitude/*/*/model"))
