"""Whatever stopped or harmed a run: it goes on to the same bits, or says why not."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from typer.testing import CliRunner

import sentei.files
from sentei import cli, manifest
from sentei.locks import FolderLock
from sentei.messages import SenteiWarning
from sentei.run.prepare import prepare
from sentei.run.run import prune
from sentei.run.saving import SaveError
from sentei.run.settings import Settings
from sentei.run.signals import SIGNALS
from sentei.run.training import Interrupted, PruningTrainer

pytestmark = pytest.mark.usefixtures("no_pages")

STOP = 13
"""A step between two logged ones, two checkpoints, and two evaluations."""


def run_command(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


class At(TrainerCallback):
    """A signal during a step."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            signal.raise_signal(self.number)


@pytest.fixture(scope="module")
def options(tiny_model, data) -> list[object]:
    words = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    words += ["--method", "platon", "--set", "schedule.every=2", "--set", "score.window=2"]
    words += ["--precision", "fp32", "--learning-rate", 1e-2, "--epochs", 4, "--checkpoints", 3]
    return [*words, "--evaluations", 2]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory) -> Path:
    """A run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = run_command("prune", *options, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def stop(settings: Settings, out: Path, *, at: int = STOP, number: int = signal.SIGINT) -> None:
    with pytest.raises(Interrupted) as stopped, warnings.catch_warnings():
        warnings.simplefilter("ignore", SenteiWarning)  # that training stopped is what is wanted
        prune(prepare(settings), out, resume=True, watch=[At(at, number)])
    assert stopped.value.status == 128 + number


@pytest.fixture(scope="module")
def unfinished(whole, tmp_path_factory) -> Path:
    """The same run, stopped."""
    out = tmp_path_factory.mktemp("unfinished") / "run"
    stop(Settings.read(whole / "run.yaml"), out)
    assert [path.name for path in checkpoints(out)] == ["checkpoint-13", "checkpoint-6"]
    return out


@pytest.fixture
def stopped(unfinished, tmp_path) -> Path:
    """A copy, to be harmed."""
    return Path(shutil.copytree(unfinished, tmp_path / "run"))


def checkpoints(out: Path) -> list[Path]:
    found = (out / "checkpoints").glob("checkpoint-*")
    found = (path for path in found if path.name.rpartition("-")[2].isdigit() and path.is_dir())
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def facts(out: Path) -> dict[str, object]:
    report = json.loads((out / "report.json").read_text())
    own = ("created", "seconds", "environment", "settings")
    return {name: value for name, value in report.items() if name not in own}


def expect_same(out: Path, whole: Path) -> None:
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert facts(out) == facts(whole)
    ours, theirs = checkpoints(out)[0], checkpoints(whole)[0]
    assert ours.name == theirs.name
    for name in ("model/model.safetensors", ours / "pruner.safetensors"):
        other = theirs / name.name if isinstance(name, Path) else whole / name
        a, b = load_file(out / name), load_file(other)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert run_command("verify", out).exit_code == 0


def expect_goes_on(out: Path, whole: Path, said: str = "") -> None:
    done = run_command("prune", "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    assert said in done.stderr.replace("\n", " ")
    expect_same(out, whole)


# ------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_a_checkpoint_that_goes_on_to_the_same_bits(number, whole, tmp_path):
    stop(Settings.read(whole / "run.yaml"), tmp_path / "run", number=number)
    expect_goes_on(tmp_path / "run", whole)


@pytest.mark.parametrize("at", [1, 10, 20])
def test_wherever_it_comes(at, whole, tmp_path):
    """In the first step, where a loss is logged and evaluated, and in the last step."""
    stop(Settings.read(whole / "run.yaml"), tmp_path / "run", at=at)
    expect_goes_on(tmp_path / "run", whole)


WAYS = {
    "sparsebert": "--optimizer bert_adam --lr-schedule constant --clip-each --adam-epsilon 1e-6",
    "platon": "--optimizer bert_adamax --weight-decay 0.01 --group-by-length --accumulate 2",
    "mgpp": "--adam-beta2 0.98 --lr-schedule cosine --lr-floor 0.1 --clip 0",
    "movement": "--freeze-embeddings --lr-floor 0.2 --method movement",
}
"""As the papers train."""


@pytest.mark.parametrize("way", WAYS)
def test_whatever_it_is_trained_with(way, options, tmp_path):
    words = options if way != "movement" else options[: options.index("--method")]
    words = [*words, *WAYS[way].split(), "--learning-rate", 1e-3, "--precision", "fp32"]
    whole = tmp_path / "whole"
    done = run_command("prune", *words, "--out", whole)
    assert done.exit_code == 0, done.output
    stop(Settings.read(whole / "run.yaml"), tmp_path / "run", at=7)
    expect_goes_on(tmp_path / "run", whole)


def test_settings_of_before_these_options_go_on_with_what_was_done_then(stopped, whole):
    """A run that an older version began says nothing of them."""
    newer = ("optimizer", "adam_", "lr_schedule", "lr_floor", "clip_each", "freeze_embeddings")
    for file in (stopped / "run.yaml", *stopped.glob("checkpoints/*/settings.yaml")):
        lines = file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(tuple(f"  {n}" for n in newer))]
        assert len(lines) - len(kept) == 8
        file.write_text("".join(kept))
    for checkpoint in stopped.glob("checkpoints/*"):
        manifest.write(checkpoint)
    expect_goes_on(stopped, whole)


def test_training_does_not_go_beyond_its_last_step(whole, tmp_path):
    """Which lies within an epoch."""
    settings = Settings.read(whole / "run.yaml")
    training = settings.training.model_copy(update={"epochs": 1.5})
    settings = settings.model_copy(update={"training": training})
    alone = prune(prepare(settings), tmp_path / "alone")
    stop(settings, tmp_path / "run", at=8)
    resumed = prune(prepare(settings), tmp_path / "run", resume=True)
    assert resumed.pruning == alone.pruning and resumed.pruning.total_steps == 8
    ours, theirs = (
        load_file(tmp_path / name / "model/model.safetensors") for name in ("run", "alone")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# ---------------------------------------------------------------------------------------- harm


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


HARMS = [cut, emptied, flipped, Path.unlink]
FILES = ["model.safetensors", "config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
FILES += ["pruner.safetensors", "trainer_state.json", "trained_0.json", "metrics.jsonl"]
FILES += ["settings.yaml", "manifest.json", "seconds.txt"]


@pytest.mark.parametrize(
    ("name", "harm"), [(name, HARMS[number % 4]) for number, name in enumerate(FILES)]
)
def test_a_harmed_checkpoint_is_passed_over_and_named(name, harm, stopped, whole):
    harm(checkpoints(stopped)[0] / name)
    expect_goes_on(stopped, whole, f"{checkpoints(stopped)[0]} is passed over: ")


def test_another_checkpoints_file_is_noticed(stopped, whole):
    newest, before = checkpoints(stopped)
    shutil.copy(before / "optimizer.pt", newest)
    expect_goes_on(stopped, whole, "'optimizer.pt' is not as it was written")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        Path.unlink,
        emptied,
        lambda path: path.write_text('{"step": 1, "lo'),
    ],
)
def test_a_harmed_journal_is_the_checkpoints_again(harm, stopped, whole):
    harm(stopped / "metrics.jsonl")
    expect_goes_on(stopped, whole)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer_state.json", "null"),
        ("trainer_state.json", "1" * 5000),
        ("trainer_state.json", '{"global_step": 99, "max_steps": 3}'),
        ("trainer_state.json", '{"global_step": 1, "max_steps": 3, "stateful_callbacks": NaN}'),
        ("trained_0.json", '{"loss": "x"}'),
    ],
)
def test_a_state_that_its_manifest_tells_of_and_is_none_is_passed_over(
    name, content, stopped, whole
):
    newest = checkpoints(stopped)[0]
    (newest / name).write_text(content)
    manifest.write(newest)
    expect_goes_on(stopped, whole, f"{newest} is passed over: {name}: ")


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_an_archive_that_its_manifest_tells_of_and_is_none_is_refused(name, stopped):
    newest = checkpoints(stopped)[0]
    (newest / name).write_bytes(b"\0" * 100)
    manifest.write(newest)
    done = run_command("prune", "--out", stopped, "--resume")
    assert done.exit_code == 2 and "Traceback" not in done.output, done.output
    assert "take it away, and an older one is used" in " ".join(done.output.split())
    shutil.rmtree(newest)
    assert run_command("prune", "--out", stopped, "--resume").exit_code == 0


def test_other_folders_beside_checkpoints_are_nothing(stopped, whole):
    for name in ("checkpoint-notes", "checkpoint-99-copy", "checkpoint-", "checkpoint-99"):
        (stopped / "checkpoints" / name).mkdir()
    (stopped / "checkpoints" / "checkpoint-100").touch()
    expect_goes_on(stopped, whole, "checkpoint-99 is passed over: it has no manifest.json")


def test_without_a_complete_checkpoint_it_begins_again_and_says_so(stopped, whole):
    for checkpoint in checkpoints(stopped):
        (checkpoint / "optimizer.pt").unlink()
    done = run_command("prune", "--out", stopped, "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["passed_over"]) == 2
    expect_same(stopped, whole)


def test_what_is_harmed_does_not_push_out_what_is_complete(stopped, whole):
    """The one that is passed over is newer; and a kill may come before the next is complete."""
    newest, before = checkpoints(stopped)
    (newest / "optimizer.pt").unlink()
    stop(Settings.read(stopped / "run.yaml"), stopped, at=before_next(before))
    assert not any(map(manifest.problems, checkpoints(stopped)))
    expect_goes_on(stopped, whole)


def before_next(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2]) + 2


# ------------------------------------------------------------------------- another training


def test_another_number_of_processes_is_said_before_training(stopped):
    newest = checkpoints(stopped)[0]
    trained = json.loads((newest / "trained_0.json").read_text())
    (newest / "trained_0.json").write_text(json.dumps({**trained, "processes": 2}))
    manifest.write(newest)
    done = run_command("prune", "--out", stopped, "--resume")
    assert done.exit_code == 2
    assert "it was trained by 2 processes, and here is 1" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("learning_rate: 0.01", "learning_rate: 0.02", "trained with learning_rate=0.01"),
        ("seed: 42", "seed: 43", "trained with seed=42"),
        ("sparsity: 0.8", "sparsity: 0.7", "trained with recipe="),
    ],
)
def test_settings_that_were_changed_are_named(old, new, said, stopped):
    text = (stopped / "run.yaml").read_text()
    assert old in text
    (stopped / "run.yaml").write_text(text.replace(old, new))
    done = run_command("prune", "--out", stopped, "--resume")
    assert done.exit_code == 2 and said in done.stderr.replace("\n", " ")


def test_files_may_have_moved(stopped, whole, data, tmp_path):
    moved = shutil.copy(data["train"], tmp_path)
    text = (stopped / "run.yaml").read_text()
    (stopped / "run.yaml").write_text(text.replace(str(data["train"]), str(moved)))
    done = run_command("prune", "--out", stopped, "--resume")
    assert done.exit_code == 0, done.output
    assert facts(stopped) == facts(whole)


def test_settings_that_are_whole_are_not_written_again(stopped):
    before = {name: (stopped / name).stat().st_ino for name in ("run.yaml", "recipe.yaml")}
    assert run_command("prune", "--out", stopped, "--resume").exit_code == 0
    assert before == {name: (stopped / name).stat().st_ino for name in before}


@pytest.mark.parametrize("harm", [emptied, Path.unlink, lambda path: path.write_bytes(b"\xff")])
def test_the_recipe_is_told_again_where_it_is_not_what_is_done(harm, stopped, whole):
    harm(stopped / "recipe.yaml")
    assert run_command("prune", "--out", stopped, "--resume").exit_code == 0
    assert (stopped / "recipe.yaml").read_bytes() == (whole / "recipe.yaml").read_bytes()


# --------------------------------------------------------------------------------- finished


@pytest.mark.parametrize(
    "harm",
    [
        lambda out: shutil.rmtree(out / "model"),
        lambda out: cut(out / "model" / "model.safetensors"),
        lambda out: flipped(out / "model" / "model.safetensors"),
        lambda out: (out / "model" / "config.json").unlink(),
        lambda out: emptied(out / "report.json"),
        lambda out: cut(out / "report.json"),
    ],
)
def test_a_finished_run_without_its_result_goes_on(harm, whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    harm(out)
    expect_goes_on(out, whole, "its result is made again")


def test_a_finished_run_is_shown_and_its_card_may_change(whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / "model" / "README.md").write_text("mine")
    (out / "report.html").unlink()
    done = run_command("prune", "--out", out, "--resume")
    assert done.exit_code == 0 and "made again" not in done.stderr
    assert (out / "model" / "README.md").read_text() == "mine" and (out / "report.html").exists()
    assert run_command("report", out).exit_code == 0
    assert manifest.problems(out) == []


# ----------------------------------------------------------------------------------- one owner


@pytest.mark.parametrize("verb", [["prune", "--resume", "--out"], ["report"]])
def test_a_folder_where_another_process_is_at_work_is_left_to_it(verb, stopped, whole, monkeypatch):
    if verb == ["report"]:
        shutil.copy(whole / "report.json", stopped)
        monkeypatch.setattr(FolderLock, "__init__", _impatient(FolderLock.__init__))
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    with FolderLock(stopped):
        done = run_command(*verb, stopped)
        lock = {stopped, stopped / ".lock"}
        now = {path: path.stat().st_mtime_ns for path in stopped.rglob("*") if path not in lock}
    assert done.exit_code == 2 and "is at work in this folder" in done.stderr.replace("\n", " ")
    assert now == before


def _impatient(init):
    def impatient(self, folder, *, shared=False, patience=0.0):
        init(self, folder, shared=shared)

    return impatient


def test_a_new_run_leaves_a_folder_to_who_began_there(options, tmp_path):
    with FolderLock(tmp_path / "run"):
        done = run_command("prune", *options, "--out", tmp_path / "run")
    assert done.exit_code == 2 and "is at work in this folder" in done.stderr.replace("\n", " ")
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / ".lock").touch()  # as a process that was killed leaves it
    (tmp_path / "run" / ".run.yaml.12.unfinished").touch()
    done = run_command("prune", *options, "--epochs", 1, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "run").glob(".*"))


# ---------------------------------------------------------------------------------- the door


def test_a_tilde_is_the_home_folder_in_every_option(options, tmp_path, monkeypatch, tiny_model):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for name, source in (("model", options[1]), ("train.jsonl", options[3]), ("d.csv", options[5])):
        (home / name).symlink_to(source)
    words = ["--model=~/model", "--train=~/train.jsonl", "--eval=~/d.csv", *options[6:]]
    done = run_command("prune", *words, "--epochs", 1, "--out=~/runs/first")
    assert done.exit_code == 0, done.output
    assert list(here.iterdir()) == []
    assert (home / "runs" / "first" / "checkpoints" / "checkpoint-5").is_dir()
    text = (home / "runs" / "first" / "run.yaml").read_text()
    assert "~" not in text and str(home / "train.jsonl") in text
    again = ["--model=~/model", "--train=~/train.jsonl", "--resume", "--out=~/runs/first"]
    for verb in (["prune", *again], ["report", "~/runs/first"], ["verify", "~/runs/first"]):
        done = run_command(*verb)
        assert done.exit_code == 0, done.output
    done = run_command("evaluate", "--model=~/runs/first")
    assert done.exit_code == 0, done.output
    assert list(here.iterdir()) == []


# --------------------------------------------------------------------------------- full disks


def test_a_model_that_cannot_be_written_is_no_training_lost(stopped, whole, monkeypatch):
    save = PruningTrainer.save_model

    def full(self, output_dir=None, _internal_call=False):
        if not _internal_call:
            raise OSError(28, "No space left on device")
        save(self, output_dir, _internal_call)

    with monkeypatch.context() as patch:
        patch.setattr(PruningTrainer, "save_model", full)
        done = run_command("prune", "--out", stopped, "--resume")
    said = done.stderr.replace("\n", " ")
    assert done.exit_code == 1 and "model could not be written (No space left on device)" in said
    assert "make room and go on with --resume: training goes on from" in said
    assert "checkpoint-20, which is complete" in said
    expect_goes_on(stopped, whole)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(13, "Permission denied"), "make it writable and go on with --resume"),
        (OSError(30, "Read-only file system"), "make it writable and go on with --resume"),
        (OSError(5, "Input/output error"), "mend that and go on with --resume"),
    ],
)
def test_the_remedy_is_the_causes(error, remedy, stopped, monkeypatch):
    def fails(self, output_dir=None, _internal_call=False):
        raise error

    monkeypatch.setattr(PruningTrainer, "save_model", fails)
    with pytest.raises(SaveError, match=remedy):
        prune(prepare(Settings.read(stopped / "run.yaml")), stopped, resume=True)


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/run"])
def test_what_is_no_folder_is_said_so(place, options):
    done = run_command("prune", *options, "--out", place)
    assert done.exit_code == 2 and "name a folder" in done.stderr and "room" not in done.stderr


# ------------------------------------------------------------------------------------- kills

FORK = multiprocessing.get_context("fork")


def killed_at(number: int, words: list[object]) -> None:
    """The command in this process, killed when it has the disk keep its number-th file."""
    sync, left = sentei.files._sync_one, iter(range(number - 1))

    def once(path: Path) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    sentei.files._sync_one = once
    run_command(*words)


@pytest.mark.parametrize("number", [2, 12, 60])
def test_a_kill_while_writing_leaves_a_run_that_goes_on(number, options, whole, tmp_path):
    """In the settings, in the first checkpoint, and later; every write is in ``make soak``."""
    out = tmp_path / "run"
    process = FORK.Process(target=killed_at, args=(number, ["prune", *options, "--out", out]))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    if (out / "run.yaml").exists():
        expect_goes_on(out, whole)
        return
    done = run_command("prune", *options, "--out", out)
    assert done.exit_code == 0, done.output
    expect_same(out, whole)
