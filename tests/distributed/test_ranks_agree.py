"""Processes under DDP make the masks that one process makes, with every method."""

from __future__ import annotations

from functools import lru_cache, partial

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

import sentei
from distributed.sharding import METHODS, Case, launch, recipe_of
from helpers.zoo import ZOO
from sentei.testing import Network, make_sparse_

STEPS = 16
BATCH = 8


def share(batch: torch.Tensor, mesh: DeviceMesh | None) -> torch.Tensor:
    """This process's part of a batch."""
    return batch if mesh is None else batch.chunk(mesh.size())[mesh.get_rank()]


def train(recipe: sentei.Recipe, mesh: DeviceMesh | None) -> dict[str, torch.Tensor]:
    """Train on this process's share of every batch; the masks at the end."""
    torch.manual_seed(0)
    model: nn.Module = Network(dtype=torch.float64)
    make_sparse_(model, recipe)
    if mesh is not None:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    pruner = sentei.Pruner(model, recipe, total_steps=STEPS, examples=STEPS * BATCH)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        inputs = share(torch.randn(BATCH, 8, generator=generator, dtype=torch.float64), mesh)
        target = inputs.square().mean(-1, keepdim=True)
        nn.functional.mse_loss(model(inputs), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert pruner.pruned
    return {name: mask.clone() for name, mask in pruner.masks.items()}


def train_heads(method: str, mesh: DeviceMesh | None) -> dict[str, torch.Tensor]:
    """As :func:`train`, of a transformer's heads and neurons."""
    torch.manual_seed(0)
    model: nn.Module = ZOO["bert"].build().double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if mesh is not None:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe = recipe_of(method, "pattern=head+neuron", "schedule.warmup=0")
    pruner = sentei.Pruner(model, recipe, total_steps=STEPS)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        ids = share(torch.randint(5, 40, (BATCH, 6), generator=generator), mesh)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        nn.functional.cross_entropy(logits, ids[:, 0] % 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert pruner.pruned
    return {name: mask.clone() for name, mask in pruner.masks.items()}


CASES: dict[str, Case] = {
    **{method: partial(train, recipe_of(method)) for method in METHODS},
    **{f"heads of {method}": partial(train_heads, method) for method in ("movement", "l0", "leap")},
    # To which each process brings the inputs that it has seen.
    "reconstruction": partial(train, recipe_of("magnitude", "reconstruction=least_squares")),
}

alone = lru_cache(lambda case: CASES[case](None))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of two processes, and of four, all cases."""
    return {n: launch(n, CASES, tmp_path_factory.mktemp("ranks")) for n in (2, 4)}


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_agree(results, ranks, case):
    for made in results[ranks]:
        assert made[case].keys() == alone(case).keys()  # DDP's prefix is not part of a name
        for name, mask in alone(case).items():
            assert torch.equal(made[case][name], mask), name
