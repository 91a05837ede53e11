"""A process that shares weights out with others is killed: they end, and the run goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import checkpoint
from torch.distributed.device_mesh import DeviceMesh
from torch.optim.optimizer import register_optimizer_step_pre_hook

from distributed.sharding import STEPS, Run, ends, launch, parts, recipe_of, train

pytestmark = pytest.mark.long

RECIPE = recipe_of("movement")
alone = lru_cache(lambda: train(RECIPE, None))


def go_on(folder: Path, mesh: DeviceMesh) -> Any:
    """Train to the end from the last whole checkpoint; save one at every other step."""
    run = Run(RECIPE, mesh)
    whole = [path.parent for path in folder.glob("*/.metadata")]  # which is written last
    if whole:
        latest, state = max(whole, key=lambda path: int(path.name)), parts(run)
        checkpoint.load(state, checkpoint_id=latest)
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.pruner.load_state_dict(state["pruner"])
        run.count = int(latest.name)
    while run.count < STEPS:
        run.train(2 - run.count % 2)
        checkpoint.save(parts(run), checkpoint_id=folder / str(run.count))
    return run.result()


def killed(rank: int, dies: Callable[[], None], folder: Path, mesh: DeviceMesh) -> Any:
    if mesh.get_rank() == rank:
        dies()
    return go_on(folder, mesh)


def at_call(owner: Any, name: str, number: int) -> None:
    """Kill this process at the n-th call of a function."""
    call, left = getattr(owner, name), iter(range(number - 1))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)

    setattr(owner, name, counted)


def at_step(number: int) -> None:
    """Kill this process as an optimizer is about to step, for the n-th time."""
    left = iter(range(number - 1))

    def step(*_: object) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(step)


MOMENTS = {
    "in a decision": (1, partial(at_call, dist, "all_reduce", 9)),
    "in the last decision": (0, partial(at_call, dist, "all_reduce", 18)),
    "before a step": (1, partial(at_step, 6)),
    "in a checkpoint": (0, partial(at_call, os, "fsync", 5)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_others_end_and_the_run_goes_on_to_the_same_bits(moment, tmp_path):
    rank, dies = MOMENTS[moment]
    saved, first, again = (tmp_path / name for name in ("saved", "first", "again"))
    for folder in (saved, first, again):
        folder.mkdir()
    codes, said = ends(2, {moment: partial(killed, rank, dies, saved)}, first)
    assert (codes[rank], codes[1 - rank]) == (-signal.SIGKILL, 1)
    if "decision" in moment:  # which is ours to say; the rest is torch's
        assert "another of the processes that train together has ended" in said[0], said
    made = launch(2, {"again": partial(go_on, saved)}, again)
    for result in made:
        for name, mask in alone()["masks"].items():
            assert torch.equal(result["again"]["masks"][name], mask), name
        for name, weight in alone()["weights"].items():
            assert torch.equal(result["again"]["weights"][name], weight), name
        assert result["again"]["report"]["updates"] == alone()["report"]["updates"]
