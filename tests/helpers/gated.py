"""A second implementation of mask training: gates in the forward pass, everything by autograd.

Weights, scores and thresholds are parameters of one AdamW, penalties are terms of the loss, and the
mask is a custom autograd function, as in the authors' codes. Nothing here is Sentei's but the small
network and its data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from sentei.testing import Training

STEPS = 60
MICRO_BATCHES = 2


class StraightThrough(torch.autograd.Function):
    """A given mask; its gradient goes to the scores, and where kept to a threshold, unchanged."""

    @staticmethod
    def forward(ctx, scores, threshold, mask):
        ctx.save_for_backward(mask)
        return mask.clone()

    @staticmethod
    def backward(ctx, gradient):
        (mask,) = ctx.saved_tensors
        return gradient, (gradient * mask).sum(), None


def top(scores: Tensor, pruned: int) -> Tensor:
    """1 for all but the ``pruned`` lowest; the earlier of equal ones are lower."""
    mask = torch.ones(scores.numel(), dtype=scores.dtype)
    mask[torch.sort(scores.detach().flatten(), stable=True).indices[:pruned]] = 0
    return mask.view_as(scores)


def cubic(t: int, final: float, warmup: float, cooldown: float, total: int = STEPS) -> float:
    """The authors' ramp from 0 to ``final`` at the 0-based step ``t``."""
    start, end = warmup * total, total - cooldown * total
    if t <= start:
        return 0.0
    return final - final * max(1 - (t - start) / (end - start), 0.0) ** 3


def linear(warmup: int, total: int = STEPS):
    """Hugging Face's linear learning-rate schedule with warm-up."""
    return lambda t: t / warmup if t < warmup else max(0.0, (total - t) / (total - warmup))


class Gated:
    """The network of ``sentei.testing`` with the weights of its blocks times gates."""

    def __init__(self, *, score_lr=0.0, initial=0.0, sigma_lr=0.0, sigma=0.0, warmup=6):
        plain = Training(None, dtype=torch.float64, steps=STEPS)
        self.network, self.inputs, self.targets = plain.model, plain.inputs, plain.targets
        self.weights = [block.weight for block in self.network.blocks]
        self.scores = [nn.Parameter(torch.full_like(w, initial)) for w in self.weights]
        self.sigmas = [nn.Parameter(torch.tensor(sigma, dtype=torch.float64)) for _ in self.weights]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.network.parameters()), "lr": 1e-2},
                {"params": self.scores, "lr": score_lr, "weight_decay": 0.0},
                {"params": self.sigmas, "lr": sigma_lr, "weight_decay": 0.0},
            ]
        )
        rise_and_fall = linear(warmup)
        self.schedule = LambdaLR(self.optimizer, [lambda t: 1.0, rise_and_fall, rise_and_fall])
        self.t = 0

    def gates(self) -> list[Tensor]:
        """One gate a block, at step ``self.t``."""
        raise NotImplementedError

    def penalty(self) -> Tensor | float:
        """What the loss holds besides the data's."""
        return 0.0

    def push(self) -> None:
        """What the gradients hold besides the loss's."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.network.input(x)
        for block, gate in zip(self.network.blocks, self.gates(), strict=True):
            x = x + torch.tanh(functional.linear(x, block.weight * gate, block.bias))
        return self.network.output(x)

    def step(self) -> None:
        for x, y in zip(
            self.inputs[self.t].chunk(MICRO_BATCHES),
            self.targets[self.t].chunk(MICRO_BATCHES),
            strict=True,
        ):
            loss = functional.mse_loss(self.forward(x), y) + self.penalty()
            (loss / MICRO_BATCHES).backward()
        self.push()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.t += 1


def ours(recipe) -> Training:
    """The same training, pruned by a recipe."""
    return Training(recipe, dtype=torch.float64, micro_batches=MICRO_BATCHES, steps=STEPS)


def expect_same(run: Training, reference: Gated, *, scores: bool = True) -> None:
    """Latent and effective weights, scores and sigmas agree, and so does all that is not pruned."""
    memory = run.pruner.state_dict()["memory"]
    with torch.no_grad():
        gates = reference.gates()
    for i, weight in enumerate(reference.weights):
        mine = memory[f"blocks.{i}.weight"]
        close(mine["latent"], weight)
        close(run.model.blocks[i].weight, weight * gates[i])
        if scores:
            close(mine["score"], reference.scores[i])
    pairs = zip(run.model.named_parameters(), reference.network.parameters(), strict=True)
    for (name, a), b in pairs:
        if name not in memory:
            close(a, b)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-12)
