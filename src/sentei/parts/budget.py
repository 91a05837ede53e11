"""How the sparsity is spread over the sites: which of them are ranked together, and where cut.

To a budget a site is a number of entries to prune: weights, or whatever a pattern decides as one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sentei.parts.learning import Adam
from sentei.parts.part import Moment, Part

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Group:
    """Sites ranked together: prune the ``count`` lowest of all their scores.

    ``strict`` prunes only what lies below the ``count``-th lowest score instead. With a
    ``threshold``, what scores no higher than it is pruned, and ``count`` is the most that may be.
    ``of_weights`` says that ``count`` is of weights, where entries hold unlike numbers of them: as
    few of the lowest are pruned as reach it.
    """

    sites: tuple[int, ...]
    count: int
    strict: bool = False
    threshold: float | None = None
    of_weights: bool = False


class Budget(Part):
    """Splits the sites into groups, each with what to prune of it."""

    axis: ClassVar[str] = "budget"

    learned: ClassVar[bool] = False
    """Whether it learns from the gradients of the mask."""

    def mixes(self, moment: Moment) -> bool:
        """Whether units of all kinds and sizes are counted together, by their weights."""
        return False

    def start(self, sizes: Sequence[int], total: int, sparsity: float) -> dict[str, Tensor]:
        """Its state before the first step: tensors of shape (sites,), float64, on the CPU.

        ``total`` is the length of training in optimizer steps, ``sparsity`` its final target.
        """
        return {}

    def settled(self, moment: Moment) -> bool:
        """Whether the count is exact: round(all weights x ``moment.sparsity``)."""
        return True

    @abstractmethod
    def split(
        self, sizes: Sequence[int], moment: Moment, state: State, weights: Sequence[int] = ()
    ) -> tuple[Group, ...]:
        """Groups for sites of ``sizes`` entries.

        Args:
            sizes: Entries of every site.
            moment: Where training is.
            state: From :meth:`start`, of these sites.
            weights: Weights of an entry of every site, where it mixes them; empty: those are alike.
        """


class Global(Budget):
    """One ranking over all sites: sparsity goes where scores are low."""

    kind: Literal["global"] = "global"

    compat: bool = False
    """Count as PLATON's authors' code does: with k = int(n s), zero only scores strictly below
    the k-th lowest, which prunes k - 1 weights, fewer with ties, and none when k scores are 0."""

    def split(
        self, sizes: Sequence[int], moment: Moment, state: State, weights: Sequence[int] = ()
    ) -> tuple[Group, ...]:
        """One group of everything."""
        wanted = sum(sizes) * moment.sparsity
        count = int(wanted) if self.compat else round(wanted)
        return (Group(tuple(range(len(sizes))), count, strict=self.compat),)


class AcrossSizes(Budget):
    """One ranking over units of all kinds and sizes, rows of 768 beside rows of 3072.

    What is counted is weights: as few of the lowest units go as reach the sparsity, which is then
    exceeded by less than a unit. (LoSparse, arXiv 2306.11222, and its code.)
    """

    kind: Literal["across_sizes"] = "across_sizes"

    def mixes(self, moment: Moment) -> bool:
        """Always."""
        return True

    def split(
        self, sizes: Sequence[int], moment: Moment, state: State, weights: Sequence[int] = ()
    ) -> tuple[Group, ...]:
        """One group of everything."""
        return (_everything(sizes, moment, weights),)


class Uniform(Budget):
    """The same sparsity in every site, each ranked alone.

    Counts are rounded by largest remainder, so that their sum is exact; or, with ``multiple``, so
    that every site keeps a multiple of it, and places of one size are left with one shape.
    """

    kind: Literal["uniform"] = "uniform"

    multiple: int = Field(1, ge=1)
    """Every site keeps a multiple of so many units, at least one, the nearest to what was asked.
    For heads, neurons, rows, ...: 8, 16 or 64 suit the hardware."""

    def split(
        self, sizes: Sequence[int], moment: Moment, state: State, weights: Sequence[int] = ()
    ) -> tuple[Group, ...]:
        """One group per site."""
        if self.multiple > 1:
            counts = [size - self._kept(size, moment.sparsity) for size in sizes]
            return tuple(Group((i,), count) for i, count in enumerate(counts))
        return _per_site(sizes, [moment.sparsity] * len(sizes), moment.sparsity)

    def _kept(self, size: int, sparsity: float) -> int:
        nearest = round(size * (1 - sparsity) / self.multiple) * self.multiple
        return min(max(nearest, self.multiple), size) if sparsity else size


class Emergent(Budget):
    """A budget whose count comes out of training, until it settles."""

    settle: float | None = Field(0.1, ge=0, le=1)
    """Fraction of training, at its end, in which the count is exactly the one asked for, in the
    proportions found so far; 0 settles at the last step. None never does: the sparsity is what
    comes out, as in the papers. Units of unlike sizes are counted together by their weights, and
    exceed the count by less than one; where a pattern has single weights beside units, each kind is
    counted by itself."""

    def mixes(self, moment: Moment) -> bool:
        """Once it has settled: what was learned says how much each kind and size keeps."""
        return self.settled(moment)

    def settled(self, moment: Moment) -> bool:
        """Whether the end has come near enough."""
        if self.settle is None:
            return False
        return moment.step >= moment.total - round(self.settle * moment.total)


class Threshold(Emergent):
    """A given threshold on the scores: soft movement pruning, l0.

    What scores no higher is pruned. Settled, the threshold is where it must be for the count.
    (Sanh et al. 2020, arXiv 2005.07683, section 4.1; authors' code.)
    """

    kind: Literal["threshold"] = "threshold"

    final: float = 0.1
    """The threshold."""

    rises: bool = True
    """Whether it rises from 0 in step with the schedule: ``final`` s / s_T at sparsity s of s_T."""

    sigmoid: bool = True
    """Whether the threshold is on sigmoid(score), not on the score."""

    least: float = Field(0.005, ge=0, lt=1)
    """Fraction of every site that is kept whatever its scores, and one weight more, until the
    count is settled."""

    @model_validator(mode="after")
    def _has_a_logarithm(self) -> Threshold:
        if self.sigmoid and not 0 <= self.final < 1:
            raise ValueError(
                f"final={self.final:g} is a threshold on a sigmoid, which is between 0 and 1"
            )
        return self

    def split(
        self, sizes: Sequence[int], moment: Moment, state: State, weights: Sequence[int] = ()
    ) -> tuple[Group, ...]:
        """One group per site, with the same threshold; settled, one group of everything."""
        if self.settled(moment):
            return (_everything(sizes, moment, _unlike(weights)),)
        threshold = self.final * (moment.sparsity / moment.final if self.rises else 1.0)
        if self.sigmoid:
            threshold = math.log(threshold / (1 - threshold)) if threshold else -math.inf
        return tuple(
            Group((i,), max(size - int(self.least * size) - 1, 0), threshold=threshold)
            for i, size in enumerate(sizes)
        )


class LearnedRatio(Emergent):
    """A kept ratio for every site, k = sigmoid(sigma / temperature), with sigma learned: LEAP.

    Each site keeps its ceil(k n) best. The gradient of sigma is straight-through: the sum of the
    mask's gradient over what is kept; penalties on the ratio reach it through the sigmoid. Settled,
    all sigma / temperature are moved by the same amount to meet the count. (arXiv 2105.14636; code
    of its first version, yaozhewei/MLPruning at 5483912, which has no temperature.)
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

    def ratios(self, state: State) -> Tensor:
        """K of every site, (sites,)."""
        return torch.sigmoid(state["sigma"] / state["temperature"])

    def learn_(self, state: State, mask: Tensor, ratio: Tensor, moment: Moment) -> None:
        """Step sigma.

        Args:
            state: From :meth:`start`.
            mask: For every site, the sum of the mask's gradient over what is kept, (sites,).
            ratio: Gradient of the penalties at the ratios, (sites,).
            moment: Where training is.
        """
        k = self.ratios(state)
        gradient = mask + ratio * k * (1 - k) / state["temperature"]
        averages = state["sigma_exp_avg"], state["sigma_exp_avg_sq"]
        self.optimizer.step_(state["sigma"], gradient, *averages, moment)

    def split(
        self, sizes: Sequence[int], moment: Moment, state: State, weights: Sequence[int] = ()
    ) -> tuple[Group, ...]:
        """One group per site."""
        if self.settled(moment):
            weights = _unlike(weights)
            held = [n * w for n, w in zip(sizes, weights, strict=True)] if weights else sizes
            ratios = _shifted(state["sigma"] / state["temperature"], held, 1 - moment.sparsity)
            return _per_site(sizes, [1 - k for k in ratios], moment.sparsity, weights)
        kept = [math.ceil(k * n) for k, n in zip(self.ratios(state).tolist(), sizes, strict=True)]
        return tuple(Group((i,), n - k) for i, (n, k) in enumerate(zip(sizes, kept, strict=True)))

    def _temperature(self, total: int, sparsity: float) -> float:
        """Adam moves sigma by about its learning rate a step, whatever the gradient's size."""
        steps = range(1, max(round(self.travel * total), 1) + 1)
        reach = sum(self.optimizer.lr_at(_at(step, total)) for step in steps)
        way = self.initial - math.log((1 - sparsity) / sparsity) if sparsity else self.initial
        return max(reach, self.optimizer.lr) / max(way, 1.0)


def _at(step: int, total: int) -> Moment:
    return Moment(step=step, total=total, sparsity=0.0, final=0.0, reached=0.0, ramp=0.0)


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


def _unlike(weights: Sequence[int]) -> Sequence[int]:
    """The weights of entries, or none where all have as many: entries are then counted exactly."""
    return weights if len(set(weights)) > 1 else ()


def _everything(sizes: Sequence[int], moment: Moment, weights: Sequence[int]) -> Group:
    """One group of all sites, counted by weights where those of an entry are given."""
    held = [n * w for n, w in zip(sizes, weights, strict=True)] if weights else sizes
    count = round(sum(held) * moment.sparsity)
    return Group(tuple(range(len(sizes))), count, of_weights=bool(weights))


def _per_site(
    sizes: Sequence[int], pruned: Sequence[float], sparsity: float, weights: Sequence[int] = ()
) -> tuple[Group, ...]:
    """One group per site that prunes its fraction, with an exact sum: round(sum x sparsity).

    Of entries with unlike ``weights`` as few more are pruned as reach it.
    """
    each = weights or [1] * len(sizes)
    wanted = [size * share for size, share in zip(sizes, pruned, strict=True)]
    counts = [min(int(share), size) for share, size in zip(wanted, sizes, strict=True)]
    missing = round(sum(n * w for n, w in zip(sizes, each, strict=True)) * sparsity)
    missing -= sum(n * w for n, w in zip(counts, each, strict=True))
    for i in sorted(range(len(sizes)), key=lambda i: counts[i] - wanted[i]):
        if missing <= 0:
            break
        counts[i] += 1
        missing -= each[i]
    return tuple(Group((i,), count) for i, count in enumerate(counts))
