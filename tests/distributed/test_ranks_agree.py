"""Two ranks under DDP make the masks that one process makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sentei
from helpers.zoo import ZOO
from sentei import serialization
from sentei.methods import find
from sentei.testing import Network

STEPS = 30


def recipe_of(method: str, *settings: str) -> sentei.Recipe:
    """The method's, with those of the settings that it has."""
    recipe = find(method).build(0.7)
    for setting in ("schedule.every=2", "score.window=2", "score.optimizer.lr=0.2", *settings):
        try:
            recipe = serialization.override(recipe, [setting])
        except ValueError:
            continue  # not a setting of this recipe
    return recipe


def train_heads(method: str, rank: int = 0, ranks: int = 1) -> dict[str, torch.Tensor]:
    """As :func:`train`, of a transformer's heads and neurons."""
    model: nn.Module = ZOO["bert"].build().double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if ranks > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe = recipe_of(method, "pattern=head+neuron", "schedule.warmup=0")
    pruner = sentei.Pruner(model, recipe, total_steps=STEPS)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        ids = torch.randint(5, 40, (8, 6), generator=generator).chunk(ranks)[rank]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        nn.functional.cross_entropy(logits, ids[:, 0] % 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert pruner.pruned
    return {name: mask.clone() for name, mask in pruner.masks.items()}


def train_rebuilt(method: str, rank: int = 0, ranks: int = 1) -> dict[str, torch.Tensor]:
    """As :func:`train`, with reconstruction, to which each rank brings the inputs it has seen."""
    return train(method, rank, ranks, "reconstruction=least_squares")


def train(method: str, rank: int = 0, ranks: int = 1, *settings: str) -> dict[str, torch.Tensor]:
    """Train on this rank's share of every batch; the masks at the end."""
    torch.manual_seed(0)
    model: nn.Module = Network(dtype=torch.float64)
    if ranks > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recipe = recipe_of(method, *settings)
    pruner = sentei.Pruner(model, recipe, total_steps=STEPS, examples=STEPS * 8)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        inputs = torch.randn(8, 8, generator=generator, dtype=torch.float64)
        share = inputs.chunk(ranks)[rank]
        target = share.square().mean(-1, keepdim=True)
        nn.functional.mse_loss(model(share), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: mask.clone() for name, mask in pruner.masks.items()}


TRAININGS = {
    "single weights": train,
    "heads and neurons": train_heads,
    "reconstruction": train_rebuilt,
}


def work(rank: int, method: str, units: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(TRAININGS[units](method, rank, 2), Path(folder, f"{rank}.pt"))
    dist.barrier()
    os._exit(0)  # gloo's teardown aborts now and then when the other rank is gone first


@pytest.mark.parametrize(
    ("method", "units"),
    [
        *((m, "single weights") for m in ("magnitude", "platon", "mgpp", "movement", "l0", "leap")),
        *((m, "heads and neurons") for m in ("movement", "l0", "leap")),
        ("magnitude", "reconstruction"),
        ("wanda", "single weights"),
        ("obs", "reconstruction"),
    ],
)
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_ranks_agree(method, units, tmp_path):
    torch.multiprocessing.spawn(work, (method, units, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = TRAININGS[units](method)
    assert ranks[0].keys() == alone.keys()  # DDP's prefix is not part of a name
    for name, mask in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        assert torch.equal(ranks[0][name], mask)
