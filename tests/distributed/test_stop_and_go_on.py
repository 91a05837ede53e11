"""The command on two processes: stopped by a cluster's signal, and gone on with by as many."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook
from typer.testing import CliRunner

from sentei import cli, files

pytestmark = pytest.mark.long

FORK = multiprocessing.get_context("fork")


def work(rank: int, port: int, words: list[str], dies: Callable[[], None] | None) -> None:
    """One of two processes, as a launcher starts them; ``dies`` lays what kills it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # what tests before have left
    if dies is not None:
        dies()
    said = CliRunner().invoke(cli.app, words)
    if place := os.environ.get("SAID"):
        Path(place, str(rank)).write_text(said.stderr)
    code = said.exit_code
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os._exit(code)


def launch(*words: object, dies: Mapping[int, Callable[[], None]] = MappingProxyType({})) -> list:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    typed = [*map(str, words)]
    ranks = [FORK.Process(target=work, args=(i, port, typed, dies.get(i))) for i in (0, 1)]
    for rank in ranks:
        rank.start()
    return ranks


def wait_for(event: Callable[[], object], ranks: list) -> None:
    deadline = time.monotonic() + 120
    while not event():
        assert all(rank.is_alive() for rank in ranks) and time.monotonic() < deadline
        time.sleep(0.01)


def codes(ranks: list) -> list[int]:
    for rank in ranks:
        rank.join(120)
    return [rank.exitcode for rank in ranks]


@pytest.fixture(scope="module")
def task(tiny_model, data):
    task = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    task += ["--method", "magnitude", "--set", "schedule.every=2", "--sparsity", 0.7]
    task += ["--precision", "fp32", "--batch-size", 4, "--epochs", 2, "--evaluations", 0]
    return [*task, "--checkpoints", 4]


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert codes(launch("prune", *task, "--out", out)) == [0, 0]
    return out


def assert_goes_on(out: Path, whole: Path) -> None:
    """As many processes go on, to the bits of the run that nobody disturbed."""
    assert codes(launch("prune", "--out", out, "--resume")) == [0, 0]
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    one, other = (load_file(Path(of, "model", "model.safetensors")) for of in (whole, out))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def stop(out: Path, words: list) -> None:
    """Begin a run, and stop it by a cluster's signal."""
    ranks = launch("prune", *words, "--out", out)
    journal = out / "metrics.jsonl"
    wait_for(lambda: journal.is_file() and journal.read_text().count("\n") >= 2, ranks)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGTERM)
    assert codes(ranks) == [128 + signal.SIGTERM] * 2


@pytest.mark.filterwarnings("ignore:training stopped at step")
def test_two_processes_stop_at_a_signal_and_go_on_to_the_same_bits(task, whole, tmp_path):
    out = tmp_path / "stopped"
    stop(out, task)
    checkpoints = (out / "checkpoints").glob("checkpoint-*")
    checkpoint = max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))
    assert (checkpoint / "manifest.json").is_file() and not (out / "report.json").exists()
    assert all((checkpoint / f"rng_state_{number}.pth").is_file() for number in (0, 1))

    alone = CliRunner().invoke(cli.app, ["prune", "--out", str(out), "--resume"])
    assert alone.exit_code == 2 and "it was trained by 2 processes" in alone.stderr, alone.output
    assert_goes_on(out, whole)


@pytest.mark.filterwarnings("ignore:training stopped at step")
def test_so_they_do_with_whatever_it_is_trained(task, tmp_path):
    way = "--optimizer bert_adamax --lr-schedule constant --clip-each --freeze-embeddings"
    words, whole = [*task, *way.split()], tmp_path / "whole"
    assert codes(launch("prune", *words, "--out", whole)) == [0, 0]
    stop(tmp_path / "stopped", words)
    assert_goes_on(tmp_path / "stopped", whole)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(number: int) -> None:
    """Kill this process as an optimizer is about to step, for the n-th time."""
    left = iter(range(number - 1))

    def step(*_: object) -> None:
        if next(left, None) is None:
            die()

    register_optimizer_step_pre_hook(step)


def at_write(number: int) -> None:
    """Kill this process as the n-th file is complete, before it is in its place."""
    sync, left = files._sync_one, iter(range(number - 1))
    files._sync_one = lambda path: die() if next(left, None) is None else sync(path)


MOMENTS = {
    "between checkpoints, the first": (0, partial(at_step, 15)),
    "between checkpoints, the other": (1, partial(at_step, 27)),
    "the first while it writes a checkpoint": (0, partial(at_write, 24)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_ends_the_other_with_a_sentence_and_the_run_goes_on(
    moment, task, whole, tmp_path, monkeypatch
):
    out, (killed, dies) = tmp_path / "out", MOMENTS[moment]
    monkeypatch.setenv("SAID", str(tmp_path))
    ends = codes(launch("prune", *task, "--out", out, dies={killed: dies}))
    assert (ends[killed], ends[1 - killed]) == (-signal.SIGKILL, 1)
    said = (tmp_path / str(1 - killed)).read_text()
    assert "another of the processes that train together has ended" in said, said
    assert "Traceback" not in said and "goes on from its last checkpoint (--resume)" in said
    monkeypatch.delenv("SAID")
    assert_goes_on(out, whole)
