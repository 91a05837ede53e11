"""How the sparsity is spread over the sites: which of them are ranked together, and where cut.

To a budget there are *places*, each with so many entries to prune: the weights of a site, or the
units that a pattern lays over one or several.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from sentei.parts.part import Part
from sentei.parts.progress import Progress
from sentei.records import PruningReport

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Quota:
    """Places ranked together: prune the ``count`` lowest of all their scores.

    ``strict`` prunes only what lies below the ``count``-th lowest score instead. With a
    ``threshold``, what scores no higher than it is pruned, and ``count`` is the most that may be.
    ``of_weights`` says that ``count`` is of weights, where entries hold unlike numbers of them: as
    few of the lowest are pruned as reach it. ``by_row`` shares ``count`` out equally among the
    outputs of a matrix, and ranks the weights into each alone; where entries are no single weights,
    it says nothing.
    """

    places: tuple[int, ...]
    count: int
    strict: bool = False
    threshold: float | None = None
    of_weights: bool = False
    by_row: bool = False


class Budget(Part):
    """Splits the places into quotas, each with what to prune of it."""

    axis: ClassVar[str] = "budget"

    learned: ClassVar[bool] = False
    """Whether it learns from the gradients of the mask, until it has settled: then it has
    :meth:`learn_`."""

    emergent: ClassVar[bool] = False
    """Whether training finds the count, until it has settled."""

    def fits(self, recipe: Any) -> None:
        """Beside a latent mask, where it is learned."""
        if self.learned and not recipe.mask.latent:
            raise ValueError(
                "a learned budget needs the mask's gradient, which mask: straight_through forms; "
                f"mask is {recipe.mask.label}"
            )

    def mixes(self, progress: Progress) -> bool:
        """Whether units of all kinds and sizes are counted together, by their weights."""
        return False

    def start(self, sizes: Sequence[int], total: int, sparsity: float) -> dict[str, Tensor]:
        """Its state before the first step: tensors of shape (places,), float64, on the CPU.

        ``total`` is the length of training in optimizer steps, ``sparsity`` its final target.
        """
        return {}

    def settled(self, progress: Progress) -> bool:
        """Whether the count is exact: round(all weights x ``progress.sparsity``)."""
        return True

    def ratios(self, state: State) -> Tensor | None:
        """The kept ratio of every place, (places,), where they are learned; else None."""
        return None

    def learn_(self, state: State, mask: Tensor, ratio: Tensor, progress: Progress) -> None:
        """Train the state, in place.

        Args:
            state: From :meth:`start`.
            mask: For every place, the sum of the mask's gradient over what is kept, (places,).
            ratio: Gradient of the penalties at the ratios, (places,).
            progress: Where training is.
        """
        raise NotImplementedError(f"{type(self).__name__} does not learn")

    def reached(self, report: PruningReport) -> bool:
        """Whether a finished pruning has removed as much as was asked for.

        Counted as it was decided: in units of each pattern where there are units, else in weights.
        """
        counts, spare = [(report.prunable, report.pruned)], self.spare(len(report.units))
        if report.units:
            patterns = sorted({record.pattern for record in report.units})
            alike = [[r for r in report.units if r.pattern == pattern] for pattern in patterns]
            counts = [(sum(r.units for r in rs), sum(r.pruned for r in rs)) for rs in alike]
            # Units of unlike sizes are counted, and rounded, apart.
            spare += len({record.units for record in report.units}) - 1
        return all(pruned + spare >= round(total * report.target) for total, pruned in counts)

    def spare(self, places: int) -> int:
        """How many entries fewer than round(all x sparsity) may be pruned over so many places."""
        return 0

    @abstractmethod
    def split(
        self, sizes: Sequence[int], progress: Progress, state: State, weights: Sequence[int] = ()
    ) -> tuple[Quota, ...]:
        """Quotas for places of ``sizes`` entries.

        Args:
            sizes: Entries of every place.
            progress: Where training is.
            state: From :meth:`start`, of these places.
            weights: Weights of an entry of every place, where it mixes them; empty: all alike.
        """


class Global(Budget):
    """One ranking over all sites: sparsity goes where scores are low."""

    kind: Literal["global"] = "global"

    compat: bool = False
    """Count as PLATON's authors' code does: with k = int(n s), zero only scores strictly below
    the k-th lowest, which prunes k - 1 weights, fewer with ties, and none when k scores are 0."""

    def split(
        self, sizes: Sequence[int], progress: Progress, state: State, weights: Sequence[int] = ()
    ) -> tuple[Quota, ...]:
        """One quota of everything."""
        share = sum(sizes) * progress.sparsity
        count = int(share) if self.compat else round(share)
        return (Quota(tuple(range(len(sizes))), count, strict=self.compat),)

    def spare(self, places: int) -> int:
        """The one that the authors' code leaves."""
        return int(self.compat)


class AcrossSizes(Budget):
    """One ranking over units of all kinds and sizes, rows of 768 beside rows of 3072.

    What is counted is weights: as few of the lowest units go as reach the sparsity, which is then
    exceeded by less than a unit. (LoSparse, arXiv 2306.11222, and its code.)
    """

    kind: Literal["across_sizes"] = "across_sizes"

    def fits(self, recipe: Any) -> None:
        """Single weights are all of one size."""
        if not recipe.pattern.pools:
            raise ValueError(
                f"budget: across_sizes ranks units of several weights, and pattern "
                f"{recipe.pattern.label} has single ones: use budget: global"
            )

    def reached(self, report: PruningReport) -> bool:
        """In weights."""
        return report.pruned >= round(report.prunable * report.target)

    def mixes(self, progress: Progress) -> bool:
        """Always."""
        return True

    def split(
        self, sizes: Sequence[int], progress: Progress, state: State, weights: Sequence[int] = ()
    ) -> tuple[Quota, ...]:
        """One quota of everything."""
        return (everything(sizes, progress, weights),)


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
        self, sizes: Sequence[int], progress: Progress, state: State, weights: Sequence[int] = ()
    ) -> tuple[Quota, ...]:
        """One quota a place."""
        if self.multiple > 1:
            counts = [size - self._kept(size, progress.sparsity) for size in sizes]
            return tuple(Quota((i,), count) for i, count in enumerate(counts))
        return each_place(sizes, [progress.sparsity] * len(sizes), progress.sparsity)

    def spare(self, places: int) -> int:
        """A multiple rounds in every place."""
        return places * self.multiple if self.multiple > 1 else 0

    def _kept(self, size: int, sparsity: float) -> int:
        nearest = round(size * (1 - sparsity) / self.multiple) * self.multiple
        return min(max(nearest, self.multiple), size) if sparsity else size


class UniformRows(Budget):
    """The same sparsity in every output of every matrix: the weights into each are ranked alone.

    Counts are exact: those of outputs of one matrix differ by one at most, the first prune more.
    (Wanda's comparison, arXiv 2306.11695.)
    """

    kind: Literal["uniform_rows"] = "uniform_rows"

    def fits(self, recipe: Any) -> None:
        """Beside single weights."""
        if recipe.pattern.pools:
            raise ValueError(
                f"budget: {self.label} ranks the weights into one output, and pattern "
                f"{recipe.pattern.label} has no single ones: use budget: uniform"
            )

    def split(
        self, sizes: Sequence[int], progress: Progress, state: State, weights: Sequence[int] = ()
    ) -> tuple[Quota, ...]:
        """One quota a place, to be shared out among its rows."""
        quotas = each_place(sizes, [progress.sparsity] * len(sizes), progress.sparsity)
        return tuple(replace(quota, by_row=True) for quota in quotas)


class Settling(Budget):
    """A budget whose count comes out of training, until it settles."""

    emergent: ClassVar[bool] = True

    settle: float | None = Field(0.1, ge=0, le=1)
    """Fraction of training, at its end, in which the count is exactly the one asked for, in the
    proportions found so far; 0 settles at the last step. None never does: the sparsity is what
    comes out, as in the papers. Units of unlike sizes are counted together by their weights, and
    exceed the count by less than one; where a pattern has single weights beside units, each kind is
    counted by itself."""

    def mixes(self, progress: Progress) -> bool:
        """Once it has settled: what was learned says how much each kind and size keeps."""
        return self.settled(progress)

    def settled(self, progress: Progress) -> bool:
        """Whether the end has come near enough."""
        if self.settle is None:
            return False
        return progress.step >= progress.total - round(self.settle * progress.total)

    def reached(self, report: PruningReport) -> bool:
        """In weights, over all sizes; or by itself, where single weights stand beside units."""
        by_weights = report.pruned >= round(report.prunable * report.target)
        return by_weights or super().reached(report)


class Threshold(Settling):
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
        self, sizes: Sequence[int], progress: Progress, state: State, weights: Sequence[int] = ()
    ) -> tuple[Quota, ...]:
        """One quota a place, with the same threshold; settled, one of everything."""
        if self.settled(progress):
            return (everything(sizes, progress, unlike(weights)),)
        threshold = self.final * (progress.sparsity / progress.final if self.rises else 1.0)
        if self.sigmoid:
            threshold = math.log(threshold / (1 - threshold)) if threshold else -math.inf
        return tuple(
            Quota((i,), max(size - int(self.least * size) - 1, 0), threshold=threshold)
            for i, size in enumerate(sizes)
        )


def unlike(weights: Sequence[int]) -> Sequence[int]:
    """The weights of entries, or none where all have as many: entries are then counted exactly."""
    return weights if len(set(weights)) > 1 else ()


def everything(sizes: Sequence[int], progress: Progress, weights: Sequence[int]) -> Quota:
    """One quota of all places, counted by weights where those of an entry are given."""
    entries = [n * w for n, w in zip(sizes, weights, strict=True)] if weights else sizes
    count = round(sum(entries) * progress.sparsity)
    return Quota(tuple(range(len(sizes))), count, of_weights=bool(weights))


def each_place(
    sizes: Sequence[int], pruned: Sequence[float], sparsity: float, weights: Sequence[int] = ()
) -> tuple[Quota, ...]:
    """One quota a place that prunes its fraction, with an exact sum: round(sum x sparsity).

    Of entries with unlike ``weights`` as few more are pruned as reach it.
    """
    each = weights or [1] * len(sizes)
    shares = [size * share for size, share in zip(sizes, pruned, strict=True)]
    counts = [min(int(share), size) for share, size in zip(shares, sizes, strict=True)]
    missing = round(sum(n * w for n, w in zip(sizes, each, strict=True)) * sparsity)
    missing -= sum(n * w for n, w in zip(counts, each, strict=True))
    for i in sorted(range(len(sizes)), key=lambda i: counts[i] - shares[i]):
        if missing <= 0:
            break
        counts[i] += 1
        missing -= each[i]
    return tuple(Quota((i,), count) for i, count in enumerate(counts))
