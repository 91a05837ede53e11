"""The command on two processes: stopped by a cluster's signal, and gone on with by as many."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from typer.testing import CliRunner

from sentei import cli

FORK = multiprocessing.get_context("fork")


def work(rank: int, port: int, words: list[str]) -> None:
    """One of two processes, as a launcher starts them."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # what tests before have left
    said = CliRunner().invoke(cli.app, words)
    if place := os.environ.get("SAID"):
        Path(place, str(rank)).write_text(said.stderr)
    code = said.exit_code
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os._exit(code)


def launch(*words: object) -> list:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [FORK.Process(target=work, args=(i, port, [*map(str, words)])) for i in (0, 1)]
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


@pytest.mark.filterwarnings("ignore:training stopped at step")
@pytest.mark.parametrize(
    "way", ["", "--optimizer bert_adamax --lr-schedule constant --clip-each --freeze-embeddings"]
)
def test_two_processes_stop_at_a_signal_and_go_on_to_the_same_bits(way, tiny_model, data, tmp_path):
    task = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    task += ["--method", "magnitude", "--set", "schedule.every=2", "--sparsity", 0.7]
    task += ["--precision", "fp32", "--batch-size", 4, "--epochs", 8, "--evaluations", 0]
    task += way.split()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert codes(launch("prune", *task, "--out", whole)) == [0, 0]

    ranks = launch("prune", *task, "--out", stopped)
    journal = stopped / "metrics.jsonl"
    wait_for(lambda: journal.is_file() and journal.read_text().count("\n") >= 2, ranks)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGTERM)
    assert codes(ranks) == [128 + signal.SIGTERM] * 2
    checkpoints = (stopped / "checkpoints").glob("checkpoint-*")
    checkpoint = max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))
    assert (checkpoint / "manifest.json").is_file() and not (stopped / "report.json").exists()
    assert all((checkpoint / f"rng_state_{number}.pth").is_file() for number in (0, 1))

    alone = CliRunner().invoke(cli.app, ["prune", "--out", str(stopped), "--resume"])
    assert alone.exit_code == 2 and "it was trained by 2 processes" in alone.stderr, alone.output

    assert codes(launch("prune", "--out", stopped, "--resume")) == [0, 0]
    assert journal.read_text() == (whole / "metrics.jsonl").read_text()
    one, other = (load_file(Path(out, "model", "model.safetensors")) for out in (whole, stopped))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_a_sentence(
    killed, tiny_model, data, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setenv("SAID", str(tmp_path))
    task = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    task += ["--method", "magnitude", "--set", "schedule.every=2", "--precision", "fp32"]
    task += ["--batch-size", 4, "--epochs", 40, "--evaluations", 0, "--checkpoints", 40]
    ranks = launch("prune", *task, "--out", out)
    wait_for(lambda: [*out.glob("checkpoints/checkpoint-*/manifest.json")], ranks)
    os.kill(ranks[killed].pid, signal.SIGKILL)
    ends = codes(ranks)
    assert (ends[killed], ends[1 - killed]) == (-signal.SIGKILL, 1)
    said = (tmp_path / str(1 - killed)).read_text()
    assert "another of the processes that train together has ended" in said, said
    assert "Traceback" not in said and "goes on from its last checkpoint (--resume)" in said
