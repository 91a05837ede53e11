"""The command on two processes: stopped by a cluster's signal, and gone on with by as many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file
from typer.testing import CliRunner

from sentei import cli

COMMAND = "import sys; from sentei import cli; sys.argv[0] = 'sentei'; cli.main()"
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]


def launch(*words: object) -> subprocess.Popen:
    command = [sys.executable, *LAUNCHER, sys.executable, "-c", COMMAND, *map(str, words)]
    # No GPU: the launcher's processes agree over gloo.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> str:
    _, said = process.communicate(timeout=240)
    return said


def test_two_processes_stop_at_a_signal_and_go_on_to_the_same_bits(tiny_model, data, tmp_path):
    task = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    task += ["--method", "magnitude", "--set", "schedule.every=2", "--sparsity", 0.7]
    task += ["--precision", "fp32", "--batch-size", 4, "--epochs", 8, "--evaluations", 0]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    straight = launch("prune", *task, "--out", whole)
    assert not (said := ended(straight), straight.returncode)[1], said

    process = launch("prune", *task, "--out", stopped)
    journal, deadline = stopped / "metrics.jsonl", time.monotonic() + 120
    while not (journal.is_file() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    ended(process)
    checkpoints = (stopped / "checkpoints").glob("checkpoint-*")
    checkpoint = max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))
    assert (checkpoint / "manifest.json").is_file() and not (stopped / "report.json").exists()
    for number in (0, 1):
        assert (checkpoint / f"rng_state_{number}.pth").is_file()

    alone = CliRunner().invoke(cli.app, ["prune", "--out", str(stopped), "--resume"])
    assert alone.exit_code == 2 and "it was trained by 2 processes" in alone.stderr, alone.output

    again = launch("prune", "--out", stopped, "--resume")
    assert not (said := ended(again), again.returncode)[1], said
    assert journal.read_text() == (whole / "metrics.jsonl").read_text()
    one, other = (load_file(Path(out, "model", "model.safetensors")) for out in (whole, stopped))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())
