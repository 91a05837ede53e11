"""Comparisons on a cluster: Ray on this machine, with two CPUs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from helpers import trouble
from helpers.comparing import ENTRY, begun, checkpoints, compare, small_plan, write
from sentei.cli import comparison

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_pages")]

DENSE = "runs/words/dense/seed1"
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def on_ray():
    """Ray started as by ``--ray local``, once for all that is done with it."""
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    from sentei.compare import cluster

    folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short path, for sockets
    (folder / "matplotlib.py").write_text("raise ModuleNotFoundError(name='matplotlib')")
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    paths = [folder, TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
        patch.setenv(trouble.FOLDER, str(folder))
        patch.setenv(trouble.DRIVER, str(os.getpid()))
        patch.setattr(ray, "init", partial(ray.init, num_cpus=2, _temp_dir=str(folder)))
        with cluster.connected("local"):
            started = psutil.Process().children(recursive=True)
            patch.setattr(cluster, "connected", lambda address: nullcontext())
            yield
    _, left = psutil.wait_procs(started, timeout=30)
    assert not left
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, handler)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made(on_ray, tiny_model, data, tmp_path_factory):
    """Stopped by Ctrl-C, then gone on with; once the process of the dense run is killed."""
    folder = tmp_path_factory.mktemp("cluster")
    plan = small_plan(tiny_model, data, settings={"epochs": 4, "checkpoints": 4})
    plan["recipes"] = {"magnitude": ENTRY, "wild": {**ENTRY, "settings": {"learning_rate": 1e14}}}
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "lines", trouble.lines)
        options = ["--out", out, "--ray", "local", "--cpus", 2]
        first = compare(write(plan, folder), *options)
        stopped, hidden = checkpoints(out), [path.name for path in out.rglob(".*")]
        second = compare(*options)
    return out, first, stopped, hidden, second


def test_ctrl_c_has_the_run_leave_a_checkpoint(made):
    out, first, stopped, hidden, _ = made
    assert first.exit_code == 130, first.output
    told = " ".join(first.stderr.split())
    assert "stopping 3 runs" in told and f"{DENSE}: stopped at step" in told
    assert f"sentei compare --out {out} --ray local --cpus 2" in first.stderr.replace("\n", "")
    assert max(map(step, stopped)) < trouble.KILL and not hidden


def test_a_run_whose_process_was_killed_goes_on_from_its_checkpoint(made):
    out, _, stopped, _, second = made
    told = " ".join(second.stderr.split())
    assert f"{DENSE}: its process died" in told
    assert begun(second.stderr).count(DENSE) == 2
    steps = [int(number) for number in re.findall(rf"{DENSE}: \w+ step (\d+)/", second.stderr)]
    again = [after for before, after in pairwise(steps) if after <= before]
    assert max(map(step, stopped)) < min(steps)
    assert len(again) <= 1 and all(number > 10 for number in again)  # the newest one is of step 10
    assert (out / DENSE / "report.json").is_file() and not (out / DENSE / "checkpoints").exists()


def step(checkpoint: Path) -> int:
    return int(checkpoint.parent.name.removeprefix("checkpoint-"))


def test_a_run_that_fails_ends_in_its_own_error(made):
    out, _, _, _, second = made
    assert second.exit_code == 1 and "2 of 3 runs are done, 1 failed" in second.output
    assert "Traceback" in (out / "runs/words/wild/0.8/seed1/error.txt").read_text()
    assert (out / "runs/words/magnitude/0.8/seed1/model/model.safetensors").is_file()


def test_runs_get_the_cpus_that_were_asked_for(made):
    """All of them, so one run ends before the next begins; each says its machine and its value."""
    lines = made[4].stderr.splitlines()
    told = [
        line for line in lines if re.match(r"\[\d/3\] runs/", line) and ": training" not in line
    ]
    begins = [f"(on {socket.gethostname()}, " in line for line in told]
    assert begins == [True, False] * 4
    assert any(re.search(rf"{DENSE}: accuracy \d", line) for line in told)


def test_more_than_there_is(on_ray, tiny_model, data, tmp_path):
    file = write(small_plan(tiny_model, data), tmp_path)
    done = compare(file, "--out", tmp_path / "out", "--ray", "local", "--cpus", 3)
    assert done.exit_code == 2 and "--gpus 0 --cpus 3: no machine" in done.stderr
