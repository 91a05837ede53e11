"""How the sparsity is spread over the sites: which of them are ranked together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from sentei.parts.part import Part


@dataclass(frozen=True)
class Group:
    """Sites ranked together: prune the ``count`` lowest of all their scores.

    ``strict`` prunes only what lies below the ``count``-th lowest score instead.
    """

    sites: tuple[int, ...]
    count: int
    strict: bool = False


class Budget(Part):
    """Splits the sites into groups, each with the number of its weights to prune."""

    axis: ClassVar[str] = "budget"

    @abstractmethod
    def split(self, sizes: Sequence[int], sparsity: float) -> tuple[Group, ...]:
        """Groups for sites of ``sizes`` weights; counts add up to round(sum * sparsity)."""


class Global(Budget):
    """One ranking over all sites: sparsity goes where scores are low."""

    kind: Literal["global"] = "global"

    compat: bool = False
    """Count as PLATON's authors' code does: with k = int(n s), zero only scores strictly below
    the k-th lowest, which prunes k - 1 weights, fewer with ties, and none when k scores are 0."""

    def split(self, sizes: Sequence[int], sparsity: float) -> tuple[Group, ...]:
        """One group of everything."""
        wanted = sum(sizes) * sparsity
        count = int(wanted) if self.compat else round(wanted)
        return (Group(tuple(range(len(sizes))), count, strict=self.compat),)


class Uniform(Budget):
    """The same sparsity in every site, each ranked alone.

    Counts are rounded by largest remainder, so that their sum is exact.
    """

    kind: Literal["uniform"] = "uniform"

    def split(self, sizes: Sequence[int], sparsity: float) -> tuple[Group, ...]:
        """One group per site."""
        wanted = [size * sparsity for size in sizes]
        counts = [int(share) for share in wanted]
        by_remainder = sorted(range(len(sizes)), key=lambda i: counts[i] - wanted[i])
        for i in by_remainder[: round(sum(sizes) * sparsity) - sum(counts)]:
            counts[i] += 1
        return tuple(Group((i,), count) for i, count in enumerate(counts))
