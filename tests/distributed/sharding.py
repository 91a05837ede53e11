"""Trainings of sharded models, run by several processes at once or by one alone."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import sentei
from sentei import serialization
from sentei.methods import find, known
from sentei.testing import Network, make_sparse_

STEPS = 8
METHODS = tuple(method.name for method in known())
SETTINGS = ("schedule.every=2", "schedule.stages=3", "score.window=2", "score.optimizer.lr=0.2")
"""Those of them that a recipe has."""


def recipe_of(method: str, *settings: str) -> sentei.Recipe:
    recipe = find(method).build(0.7)
    for setting in SETTINGS:
        try:
            recipe = serialization.override(recipe, [setting])
        except ValueError:
            continue  # not a setting of this recipe
    return serialization.override(recipe, list(settings))


WIDTH = 6
"""Of a network whose shards cut blocks of 2 x 2 over two processes, and over four leave one of them
empty."""


def shard(model: nn.Module, block: nn.Module, mesh: DeviceMesh, **options: Any) -> None:
    """As is usual: blocks by themselves, here one, and the rest together."""
    fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def ended(model: nn.Module, pruner: sentei.Pruner) -> dict[str, Any]:
    """What came of a training, whole."""
    masks = {name: whole(mask) for name, mask in pruner.masks.items()}
    sparsity, report = pruner.sparsity, pruner.finish()
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    return {
        "masks": masks,
        "weights": weights,
        "sparsity": sparsity,
        "report": report.model_dump(exclude={"recipe"}),
    }


class Run:
    """A training of a small network; every process sees the same batches.

    Gradients are averaged over a power of two, so that they are those of one process to the bit.
    """

    def __init__(
        self,
        recipe: sentei.Recipe,
        mesh: DeviceMesh | None,
        *,
        width: int = WIDTH,
        dtype: torch.dtype = torch.float64,
        late: bool = False,
        state_dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.dtype = dtype
        self.model: nn.Module = Network(width, dtype=dtype)
        make_sparse_(self.model, recipe)
        plan = {"total_steps": STEPS, "examples": STEPS * 8, "state_dtype": state_dtype}
        if mesh is not None and not late:
            shard(self.model, self.model.blocks[1], mesh, **options)
        self.pruner = sentei.Pruner(self.model, recipe, **plan)
        if mesh is not None and late:
            shard(self.model, self.model.blocks[1], mesh, **options)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.pruner.attach(self.optimizer)
        self.count = 0

    def train(self, steps: int = STEPS) -> Run:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(STEPS, 8, 8, generator=generator, dtype=self.dtype)
        for batch in inputs[self.count : self.count + steps]:
            target = batch.square().mean(-1, keepdim=True)
            nn.functional.mse_loss(self.model(batch).to(self.dtype), target).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.count += 1
            if self.count % 3 == 0:  # which may leave whole copies of weights in place
                with torch.no_grad():
                    self.model.eval()(batch)
                self.model.train()
        return self

    def result(self) -> dict[str, Any]:
        return ended(self.model, self.pruner)


def train(recipe: sentei.Recipe, mesh: DeviceMesh | None, **options: Any) -> Any:
    return Run(recipe, mesh, **options).train().result()


def parts(run: Run) -> dict[str, Any]:
    """What a checkpoint holds of a training."""
    if not run.optimizer.state:  # a checkpoint is read into what is there
        for parameter in run.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        run.pruner.detach()
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.model.load_state_dict(before)
        run.pruner.attach(run.optimizer)
    return {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "pruner": run.pruner.state_dict(),
    }


Case = Callable[[DeviceMesh | None], Any]
"""What is done over a mesh, or alone."""


def _work(rank: int, ranks: int, cases: Mapping[str, Case], folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", sentei.SenteiWarning)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks
    )
    mesh, results = init_device_mesh("cpu", (ranks,)), {}
    for name, case in cases.items():
        try:
            results[name] = case(mesh)
        except Exception:
            Path(folder, f"{rank}.txt").write_text(
                f"{name} {rank}: {traceback.format_exc(limit=-3)}"
            )
            os._exit(1)  # the others, waiting for this one, end too
    torch.save(results, Path(folder, f"{rank}.pt"))
    dist.barrier()
    os._exit(0)  # gloo's teardown aborts now and then when the other rank is gone first


def ends(ranks: int, cases: Mapping[str, Case], folder: Path) -> tuple[list[int], list[str]]:
    """Do all the cases in so many processes; how each ended, and what those said that failed."""
    context = torch.multiprocessing.get_context("fork")
    words = (ranks, cases, str(folder))
    processes = [context.Process(target=_work, args=(rank, *words)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(400)
        process.kill()
    said = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    return [process.exitcode for process in processes], said


def launch(ranks: int, cases: Mapping[str, Case], folder: Path) -> list[dict[str, Any]]:
    """Do all the cases in so many processes; what each made of each."""
    codes, said = ends(ranks, cases, folder)
    assert not any(codes), "\n".join(said)
    paths = [folder / f"{rank}.pt" for rank in range(ranks)]
    return [torch.load(path, weights_only=False) for path in paths]
