"""Precisions, scalers, compilers and layers that loops of others bring along."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import sentei
from helpers.pruning import LATENT, MAGNITUDE, MOVEMENT, PLATON, same, snapshot
from sentei.testing import STEPS, Training

RECIPES = {"platon": PLATON, "magnitude": MAGNITUDE, "movement": MOVEMENT, "l0": LATENT["l0"]}
every = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


def end(training: Training):
    """Weights, masks and records."""
    assert training.pruner is not None
    return {
        "weights": training.weights(),
        "masks": copy.deepcopy(training.pruner.masks),
        "records": [record.model_dump() for record in training.pruner.updates],
    }


class Scaled(Training):
    """A loop with a loss scaler, whose gradients overflow at some steps."""

    def __init__(self, recipe, *, fused: bool, overflows: tuple[int, ...]) -> None:
        super().__init__(None)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, fused=fused)
        self.pruner = sentei.Pruner(self.model, recipe, total_steps=STEPS)
        self.pruner.attach(self.optimizer)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=5)
        self.overflows = overflows
        self.tried = 0

    def step(self) -> None:
        self.tried += 1
        output = self.model(self.inputs[self.count])
        loss = nn.functional.mse_loss(output, self.targets[self.count])
        self.scaler.scale(loss).backward()
        over = self.tried in self.overflows
        if over:
            self.model.blocks[1].weight.grad[0, 0] = torch.inf
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.count += not over


@every
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_scaled_gradients_and_overflows_are_as_if_they_had_not_been(recipe, fused):
    plain = Scaled(recipe, fused=fused, overflows=())
    plain.scaler = torch.amp.GradScaler("cpu", enabled=False)
    scaled = Scaled(recipe, fused=fused, overflows=(1, 7, 8, 20, 35))
    plain.run(STEPS)
    scaled.run(STEPS + 5)
    assert same(end(plain), end(scaled))


@every
def test_blocks_compiled_one_by_one(recipe):
    plain, compiled = Training(recipe), Training(recipe)
    for block in compiled.model.blocks:
        block.compile(backend="aot_eager")
    assert same(end(plain.run(20)), end(compiled.run(20)))


@every
def test_activations_computed_again_in_the_backward_pass(recipe):
    plain, again = Training(recipe), Training(recipe)
    for block in again.model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    assert same(end(plain.run(20)), end(again.run(20)))


class Twice(nn.Module):
    """One layer, used twice: in one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(torch.tanh(self.layer(x))))


@every
@pytest.mark.filterwarnings("ignore:at step 36")  # a learned count is far off in so short a run
def test_a_layer_used_twice_is_one_weight(recipe):
    torch.manual_seed(0)
    model = Twice()
    recipe = recipe.model_copy(
        update={"scope": sentei.parts.Scope.model_validate({"include": ["layer.weight"]})}
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    pruner = sentei.Pruner(model, recipe, total_steps=STEPS)
    pruner.attach(optimizer)
    assert pruner.prunable == 256
    x = torch.randn(STEPS, 8, 16)
    for batch in x:
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    report = pruner.finish()
    assert report.pruned == int((model.layer.weight == 0).sum()) == round(0.7 * 256)


@every
def test_muon(recipe):
    """It orthogonalizes the gradients' averages, of matrices only."""
    training = Training(None)
    matrices = [block.weight for block in training.model.blocks]
    others = [p for p in training.model.parameters() if all(p is not m for m in matrices)]
    training.optimizer = torch.optim.Muon(matrices, lr=1e-2)
    rest = torch.optim.AdamW(others, lr=1e-2)
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    for _ in range(STEPS):
        training.step()
        rest.step()
        rest.zero_grad()
    assert training.finish().pruned == round(0.7 * 1024)


@every
def test_bf16_weights_are_scored_in_float32(recipe):
    training = Training(recipe, dtype=torch.bfloat16).run()
    kept = snapshot(training.pruner)["memory"]
    assert all(site.weight.dtype == torch.bfloat16 for site in training.model.blocks)
    for memory in kept.values():
        for name, tensor in memory.items():
            assert tensor.dtype == (torch.bfloat16 if name == "latent" else torch.float32)
    assert training.finish().pruned == round(0.7 * 1024)
