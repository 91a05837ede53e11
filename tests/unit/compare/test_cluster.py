"""What a cluster refuses, and what becomes of a run whose process dies again and again; no Ray."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from helpers.comparing import compare, small_plan, write
from helpers.plans import TASK, small
from sentei._version import VERSION
from sentei.compare.plan import load
from sentei.compare.runs import Runs

DENSE = "runs/words/dense/seed1"
MISSING = "the extra cluster is not installed"


def test_a_run_that_dies_too_often_fails(tmp_path):
    pytest.importorskip("ray", reason=MISSING)
    from ray.exceptions import WorkerCrashedError

    from sentei.compare.cluster import Cluster, Shares

    runs = Runs(load(small(tasks={"one": dict(TASK)}, sparsities=[0.8], seeds=[1])), tmp_path)
    told = []
    cluster = Cluster(runs, Shares("auto", retries=0), tell=told.append)
    run = runs["runs/one/start/seed1"]
    cluster._note_crash(run, WorkerCrashedError())
    cluster._hand_out(cluster.standing.states())  # the others wait for it
    assert [event.what for event in told] == ["lost", "failed"] and not cluster._at
    assert "its process died 1 time, more often than --retries 0" in run.error_file.read_text()
    assert not run.lease_file.exists()
    assert set(cluster.standing.states().values()) == {"failed", "blocked"}


def test_a_machine_that_does_not_see_the_folder(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason=MISSING)
    from sentei.compare import remote

    monkeypatch.setattr(remote, "SIGHT", 0.0)
    job = remote.Job(
        version=VERSION,
        plan=None,
        out=tmp_path,
        mark=tmp_path / "elsewhere",
        driver="head",
        queue=None,
        lines=None,
        launch=None,
        patience=120.0,
        keep=False,
        gpus=0.0,
    )
    refusal = remote.make(job, DENSE)
    assert refusal.kind is ValueError
    assert f"{tmp_path}: {socket.gethostname()} does not see there what head" in refusal.words[0]
    refusal = remote.make(job._replace(version="0.0"), DENSE)
    assert f"has Sentei {VERSION}, and head has 0.0" in refusal.words[0]


def test_without_ray(tiny_model, data, tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.startswith(("sentei.compare.cluster", "sentei.compare.remote", "ray.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    file = write(small_plan(tiny_model, data), tmp_path)
    done = compare(file, "--out", tmp_path / "out", "--ray", "local")
    assert done.exit_code == 2 and "pip install 'sentei[cluster]'" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "1"], "--gpus is of a cluster"),
        (["--ray", "ray://head:10001"], "Ray's clients are not supported"),
        (["--ray", "head"], "neither auto nor local nor HOST:PORT"),
        (["--ray", "127.0.0.1:1"], "nobody answers there"),
        (["--ray", "auto"], "--ray auto: no cluster here"),
    ],
    ids=["no cluster", "a client", "no port", "nobody", "none here"],
)
def test_no_cluster(options, message, tiny_model, data, tmp_path, monkeypatch):
    if "--ray" in options:
        ray = pytest.importorskip("ray", reason=MISSING)

        def init(address, **how):
            raise ConnectionError(f"no cluster here at {address}")

        monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    file = write(small_plan(tiny_model, data), tmp_path)
    done = compare(file, "--out", tmp_path / "out", *options)
    assert done.exit_code == 2 and message in " ".join(done.stderr.split()), done.output
    if "auto" in options:
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
