"""Loss scaling, averages of weights and pruning at once, of a model that processes share out."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sentei
from distributed.sharding import STEPS, WIDTH, Case, launch, recipe_of, shard, whole
from sentei.testing import Network

PRUNED = round(0.7 * 4 * WIDTH**2)


def network(mesh: DeviceMesh | None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = Network(WIDTH)
    if mesh is not None:
        shard(model, model.blocks[1], mesh, **options)
    return model


def masks_of(pruner: sentei.Pruner) -> dict[str, torch.Tensor]:
    return {name: whole(mask) for name, mask in pruner.masks.items()}


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(weight.detach()) for name, weight in model.named_parameters()}


def scaled(
    method: str, mesh: DeviceMesh | None, *, fused: bool = False, on: int | None = None
) -> dict[str, Any]:
    """A loop with a loss scaler; gradients overflow at the third try, in the rows of process ``on``
    alone, or everywhere.
    """
    model = network(mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
    pruner = sentei.Pruner(model, recipe_of(method), total_steps=STEPS)
    pruner.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=100)
    generator = torch.Generator().manual_seed(0)
    batches = list(torch.randn(STEPS, 8, 8, generator=generator))
    counts = []
    for tried, batch in enumerate([*batches[:2], batches[2], *batches[2:]]):
        target = batch.square().mean(-1, keepdim=True)
        scaler.scale(nn.functional.mse_loss(model(batch), target)).backward()
        here = mesh is None or on is None or mesh.get_rank() == on
        if tried == 2 and here:
            gradient = model.blocks[1].weight.grad
            rows = gradient.to_local() if mesh is not None else gradient
            rows[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        counts.append(pruner.step)
    masks, weights = masks_of(pruner), weights_of(model)
    pruned = pruner.finish().pruned
    return {"masks": masks, "weights": weights, "counts": counts, "pruned": pruned}


def averaged(method: str, mesh: DeviceMesh | None) -> dict[str, Any]:
    """An exponential average of the weights beside the training, sharded like them."""
    model = network(mesh)
    copied = AveragedModel(network(None), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    if mesh is not None:
        shard(copied.module, copied.module.blocks[1], mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    pruner = sentei.Pruner(model, recipe_of(method), total_steps=STEPS)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    shares = []
    for batch in torch.randn(STEPS, 8, 8, generator=generator):
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        copied.update_parameters(model)
    shares.append(pruner.mask_(copied))
    copied.update_parameters(model)
    pruner.finish()
    shares.append(pruner.mask_(copied))
    return {"shares": shares, "weights": weights_of(copied.module), "masks": {}}


def at_once(method: str, *settings: str) -> Case:
    return partial(_at_once, method, settings)


def _at_once(method: str, settings: tuple[str, ...], mesh: DeviceMesh | None) -> dict[str, Any]:
    model = network(mesh).train()
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    report = sentei.one_shot(model, recipe_of(method, *settings), [x[:32], x[32:]])
    output = model(x).detach()
    return {
        "masks": {},
        "weights": weights_of(model),
        "pruned": report.pruned,
        "report": [site.pruned for site in report.sites],
        "output": output,
    }


METHODS = ("platon", "magnitude", "movement", "l0")
CASES: dict[str, Case] = {
    **{f"scaled {method}": partial(scaled, method) for method in METHODS},
    "scaled, fused": partial(scaled, "platon", fused=True),
    "averaged platon": partial(averaged, "platon"),
    "averaged movement": partial(averaged, "movement"),
    "at once magnitude": at_once("magnitude"),
    "at once random": at_once("random"),
    "at once wanda": at_once("wanda"),
    "at once obs": at_once("obs"),
    "at once rows": at_once("magnitude", "pattern=row"),
    "at once, rebuilt": at_once("wanda", "reconstruction=least_squares"),
}
ALONE: dict[str, Case] = {
    "scaled, one overflows": partial(scaled, "platon", on=1),
    "scaled and fused, one overflows": partial(scaled, "platon", fused=True, on=1),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return launch(2, CASES | ALONE, tmp_path_factory.mktemp("ranks"))


alone = lru_cache(lambda case: CASES[case](None))


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("case", CASES)
def test_shards_are_as_the_whole(results, case):
    for made in results:
        one, other = made[case], alone(case)
        for part in ("masks", "weights"):
            for name, tensor in other[part].items():
                torch.testing.assert_close(one[part][name], tensor, rtol=1e-4, atol=1e-6)
        if "output" in other:  # the forward pass after it sees what was pruned
            torch.testing.assert_close(one["output"], other["output"], rtol=1e-4, atol=1e-5)
        for part in other.keys() - {"masks", "weights", "output"}:
            assert one[part] == other[part], part


@pytest.mark.parametrize("case", ALONE)
def test_an_overflow_in_one_process_skips_the_step_in_all(results, case):
    for made in results:
        one, other = made[case], made["scaled platon"]
        assert one["counts"] == other["counts"] and one["counts"].count(2) == 2
        assert one["pruned"] == PRUNED
        for name, mask in other["masks"].items():
            assert torch.equal(one["masks"][name], mask), name
