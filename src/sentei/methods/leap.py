r"""LEAP: learn how much of every matrix to keep, under one penalty tied to the target.

Yao et al. 2021, arXiv 2105.14636; code of its first version ("MLPruning"), yaozhewei/MLPruning at
5483912.

Every matrix m has a learned sigma and keeps its ceil(k n) best weights, k = sigmoid(sigma / T).
Scores are learned as in movement pruning, or magnitudes (``score="magnitude"``). With g the
gradient of what the module holds, W the weights and M the mask:

    d sigma = sum g W M + d(lambda L_reg)/d sigma       straight-through; the penalty through k
    L_reg   = (R - k*)^2 while R > k*, else 0           R: fraction of all weights kept; k* target
    lambda  = max(lambda_max L_reg / (1 - k*)^2, lambda_min)                          (the paper)
    lambda  = the same, and 10 once L_reg < 3e-4                    (``form="code"``: MLPruning)

Learned scores are pushed down beside their gradient, as in :mod:`sentei.methods.movement`
(``push``); the authors do not.

There is no schedule: the ratios find their way to the target, each its own. R is counted from the
model, whatever its shapes.

Cost: 17 bytes a weight with learned scores, 5 with magnitudes, and three numbers a matrix.

Against the code: it has no temperature (``temperature=1, initial=10``), which leaves sigma a
gradient of 5e-5 at the start; the paper's T suits its 220 000 steps. Here ``temperature=None``
chooses the T with which the ratios can reach the target in the first seven tenths of training, and
sigma's rate rises for half of it: scores must have learned something when the first tenths fall.
The penalty's gradient falls with the cube of the excess, and an Adam that remembers the first ones
(``ratio_beta2=0.999``, the authors') stalls in a short run: at 0.76 of 0.9 after 1000 steps of a
small network, where 0.9 comes to 0.896. Thresholds and scores are not clipped. In the last tenth of
training the count is exact, in the proportions learned; ``settle=None`` leaves it as it comes, a
little above the target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import (
    Adam,
    Constant,
    Learned,
    Magnitude,
    Pattern,
    Progress,
    Quota,
    RatioPenalty,
    Scope,
    ScorePush,
    Settling,
    StraightThrough,
    each_place,
    unlike,
)
from sentei.recipe import Recipe


class LearnedRatio(Settling):
    """A kept ratio for every site, k = sigmoid(sigma / temperature), with sigma learned: LEAP.

    Each site keeps its ceil(k n) best. The gradient of sigma is straight-through: the sum of the
    mask's gradient over what is kept; penalties on the ratio reach it through the sigmoid. Settled,
    all sigma / temperature are moved by the same amount to meet the count.
    """

    kind: Literal["learned_ratio"] = "learned_ratio"
    learned: ClassVar[bool] = True

    temperature: float | None = Field(None, gt=0)
    """Divides sigma. None chooses the one with which steps of Adam's size lead every ratio from its
    start to the target in the first ``travel`` of training."""

    travel: float = Field(0.5, gt=0, le=1)
    """Fraction of training for that way, where the temperature is chosen."""

    initial: float = 5.0
    """sigma / temperature at the start: 5 keeps 0.9933 of a site (the code: 10, 0.99995)."""

    optimizer: Adam = Adam()
    """Trains sigma."""

    def start(self, sizes: Sequence[int], total: int, sparsity: float) -> dict[str, Tensor]:
        """sigma, Adam's averages of it, and the temperature."""
        temperature = self.temperature or self._temperature(total, sparsity)
        sites = torch.ones(len(sizes), dtype=torch.float64)
        return {
            "sigma": sites * (self.initial * temperature),
            "sigma_exp_avg": torch.zeros_like(sites),
            "sigma_exp_avg_sq": torch.zeros_like(sites),
            "temperature": sites * temperature,
        }

    def ratios(self, state: Mapping[str, Tensor]) -> Tensor:
        """K of every site, (sites,)."""
        return torch.sigmoid(state["sigma"] / state["temperature"])

    def learn_(
        self, state: Mapping[str, Tensor], mask: Tensor, ratio: Tensor, progress: Progress
    ) -> None:
        """Step sigma."""
        k = self.ratios(state)
        gradient = mask + ratio * k * (1 - k) / state["temperature"]
        averages = state["sigma_exp_avg"], state["sigma_exp_avg_sq"]
        self.optimizer.step_(state["sigma"], gradient, *averages, progress)

    def split(
        self,
        sizes: Sequence[int],
        progress: Progress,
        state: Mapping[str, Tensor],
        weights: Sequence[int] = (),
    ) -> tuple[Quota, ...]:
        """One quota a site."""
        if self.settled(progress):
            weights = unlike(weights)
            entries = [n * w for n, w in zip(sizes, weights, strict=True)] if weights else sizes
            ratios = _shifted(state["sigma"] / state["temperature"], entries, 1 - progress.sparsity)
            return each_place(sizes, [1 - k for k in ratios], progress.sparsity, weights)
        kept = [math.ceil(k * n) for k, n in zip(self.ratios(state).tolist(), sizes, strict=True)]
        return tuple(Quota((i,), n - k) for i, (n, k) in enumerate(zip(sizes, kept, strict=True)))

    def _temperature(self, total: int, sparsity: float) -> float:
        """Adam moves sigma by about its learning rate a step, whatever the gradient's size."""
        steps = range(1, max(round(self.travel * total), 1) + 1)
        reach = sum(self.optimizer.lr_at(_at(step, total)) for step in steps)
        way = self.initial - math.log((1 - sparsity) / sparsity) if sparsity else self.initial
        return max(reach, self.optimizer.lr) / max(way, 1.0)


def _at(step: int, total: int) -> Progress:
    return Progress(step=step, total=total, sparsity=0.0, final=0.0, reached=0.0, ramp=0.0)


def _shifted(logits: Tensor, sizes: Sequence[int], kept: float) -> list[float]:
    """Ratios sigmoid(logits + d) with the one d that keeps ``kept`` of all weights."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    low, high = -60.0 - float(logits.max()), 60.0 - float(logits.min())
    for _ in range(100):
        middle = (low + high) / 2
        share = float((torch.sigmoid(logits + middle) * weights).sum() / weights.sum())
        low, high = (middle, high) if share < kept else (low, middle)
    ratios: list[float] = torch.sigmoid(logits + high).tolist()
    return ratios


class ExcessRatio(RatioPenalty):
    """coefficient (R - k)^2 while the remaining ratio R is above its target k: LEAP.

    The adaptive coefficient counts as a constant; ``form="code"`` is MLPruning's, which falls to
    ``near_minimum`` once (R - k)^2 < ``near``.
    """

    kind: Literal["excess_ratio"] = "excess_ratio"

    form: Literal["paper", "code"] = "paper"
    """Which of the two published coefficients."""

    maximum: float = Field(160.0, gt=0)
    """Coefficient at R = 1 (code: 20 000)."""

    minimum: float = Field(10.0, gt=0)
    """Least coefficient (code: 50)."""

    near: float = Field(3e-4, ge=0)
    """Code only: L below which the coefficient is ``near_minimum``."""

    near_minimum: float = Field(10.0, gt=0)
    """Code only: the coefficient there."""

    def gradient(self, ratios: Tensor, sizes: Tensor, progress: Progress) -> Tensor:
        """Of the term at the ratios; zero once the target is reached."""
        share, target = sizes / sizes.sum(), 1 - progress.sparsity
        excess = float((ratios * share).sum()) - target
        if excess <= 0:
            return torch.zeros_like(ratios)
        return share * (2 * excess * self.coefficient(excess**2, target))

    def coefficient(self, loss: float, target: float) -> float:
        """The adaptive coefficient at L = ``loss``, for the target ratio ``target``."""
        if self.form == "code" and loss < self.near:
            return self.near_minimum
        return max(self.maximum * loss / (1 - target) ** 2, self.minimum)


def leap(
    sparsity: float = 0.8,
    *,
    score: Literal["learned", "magnitude"] = "learned",
    score_lr: float = 1e-2,
    push: float = 3.0,
    ratio_lr: float = 1e-2,
    ratio_beta2: float = 0.9,
    ratio_warmup: float = 0.5,
    travel: float = 0.7,
    temperature: float | None = None,
    initial: float = 5.0,
    form: Literal["paper", "code"] = "paper",
    lambda_max: float = 160.0,
    lambda_min: float = 10.0,
    settle: float | None = 0.1,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """LEAP's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        score: What ranks the weights of a matrix.
        score_lr: Peak learning rate of learned scores.
        push: Of learned scores down, in mean gradients of their matrix; the paper has none.
        ratio_lr: Peak learning rate of sigma.
        ratio_beta2: Memory of Adam for sigma's squared gradients.
        ratio_warmup: Fraction of training in which sigma's rate rises.
        travel: Fraction of training for the way to the target, where T is chosen.
        temperature: T; None chooses it from the length of training.
        initial: sigma / T at the start.
        form: Which of the two published coefficients.
        lambda_max: Coefficient at R = 1; the code's is 20 000.
        lambda_min: Least coefficient; the code's is 50.
        settle: Fraction of training at its end with the exact count; None for what comes out.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    learned = Learned(optimizer=Adam(lr=score_lr))
    pushed = push and score == "learned"
    excess = ExcessRatio(form=form, maximum=lambda_max, minimum=lambda_min)
    return Recipe(
        method="leap",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=learned if score == "learned" else Magnitude(),
        schedule=Constant(sparsity=sparsity),
        budget=LearnedRatio(
            temperature=temperature,
            travel=travel,
            initial=initial,
            optimizer=Adam(lr=ratio_lr, warmup=ratio_warmup, beta2=ratio_beta2),
            settle=settle,
        ),
        mask=StraightThrough(),
        penalties=(excess, ScorePush(coefficient=push)) if pushed else (excess,),
    )


PUBLISHED = {
    "push": 0.0,
    "ratio_beta2": 0.999,
    "ratio_warmup": 0.1,
    "temperature": 1.0,
    "initial": 10.0,
    "form": "code",
    "lambda_max": 20_000.0,
    "lambda_min": 50.0,
    "settle": None,
}
"""MLPruning's, for trainings of 100,000 steps and more."""

METHOD = Method(
    name="leap",
    build=leap,
    summary="learns how much of every matrix to keep, under one penalty tied to the target",
    paper="Yao et al., LEAP: Learnable pruning for transformers, 2021, arXiv 2105.14636",
    published=PUBLISHED,
)
