"""Frozen mask: a model that is sparse already is fine-tuned and stays exactly as sparse.

Pruning upstream, on the pretraining task, then transfer: what was pruned once serves many tasks.
Zafrir et al. 2021, arXiv 2111.05754 (its "pattern lock"); oBERT, arXiv 2203.07259, and MGPP, arXiv
2411.00969, transfer so.

    S = 1 where w was not zero at the start, else 0      the lowest are as many as there were zeros

What is zero in the scope at the start is set to zero after every optimizer step; nothing else is
pruned. A dense model is refused. With ``sparsity``, so is one less sparse than that.

Cost: 5 bytes a weight (what was there, the mask), no gradient read; one pass over the weights a
step.

Against the authors' code, which zeroes gradients too: gradients stay dense, and the gradient's norm
for clipping counts those of pruned weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import Global, Memory, Project, Schedule, Scope, Score, Sparsity, Unstructured
from sentei.recipe import Recipe


class Nonzero(Score):
    """1 for a weight that is not zero when pruning begins, 0 for one that is: the mask it has."""

    kind: Literal["nonzero"] = "nonzero"
    memory: ClassVar[tuple[str, ...]] = ("nonzero",)

    def fits(self, recipe: Any) -> None:
        """A score of two values cuts only where the zeros are counted, all of them together."""
        needs = {
            "schedule": (recipe.schedule.from_model, "existing"),
            "budget": (recipe.budget == Global(), "global"),
            "mask": (recipe.mask == Project(hold=True), "{kind: project, hold: true}"),
            "pattern": (recipe.pattern == Unstructured(), "unstructured"),
        }
        for part, (holds, fix) in needs.items():
            if not holds:
                raise ValueError(
                    f"score: nonzero keeps a model's zeros, weight by weight: use {part}: {fix} "
                    "with it"
                )

    def start_(self, memory: Memory, weight: Tensor, number: int) -> None:
        """Look."""
        memory["nonzero"].copy_(weight != 0)

    def changes_at(self, step: int) -> bool:
        """Never."""
        return False

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """As it was."""
        return memory["nonzero"]


class Existing(Schedule):
    """The sparsity that the model has when pruning begins, at every step: nothing more is asked.

    Decided at the first step and the last.
    """

    kind: Literal["existing"] = "existing"
    from_model: ClassVar[bool] = True

    sparsity: Sparsity | None = None  # type: ignore[assignment]
    """The least that the model must have; what it has takes its place. None takes all but 0."""

    def resolve(self, zeros: int, weights: int) -> Self:
        """The schedule for a model with so many zeros among its prunable weights.

        Raises:
            ValueError: The model is dense, less sparse than it must be, or all zeros.
        """
        if self.sparsity is None and zeros == 0:
            raise ValueError(
                f"schedule.kind=existing: none of the {weights:,} prunable weights is zero, so "
                "there is no sparsity to keep. Name a model that was pruned before, or a method "
                "that prunes"
            )
        if zeros < round(weights * (self.sparsity or 0)):
            raise ValueError(
                f"schedule.sparsity={self.sparsity}: {zeros / weights:.4%} of the {weights:,} "
                "prunable weights of this model are zero, which is less. Name the model that was "
                "pruned so far, or leave the sparsity out to keep what is there"
            )
        if zeros == weights:
            raise ValueError(
                f"schedule.kind=existing: all of the {weights:,} prunable weights are zero, and "
                "nothing is left to train. Name another model"
            )
        return self.model_copy(update={"sparsity": zeros / weights})

    def at(self, step: int, total: int) -> float:
        """What the model had."""
        assert self.sparsity is not None
        return self.sparsity

    def ramp(self, step: int, total: int) -> float:
        """Behind its end, always."""
        return 1 + step / total

    def is_update(self, step: int, total: int) -> bool:
        """At the first step and the last."""
        return step in (1, total)

    def check(self, total: int) -> None:
        """Any number of steps will do."""
        return None


def frozen_mask(
    sparsity: float | None = None, *, scope: Scope | Mapping[str, object] | None = None
) -> Recipe:
    """The recipe that keeps a model's zeros.

    Args:
        sparsity: The least fraction of the prunable weights that must be zero, in [0, 1); None
            takes any model with a zero.
        scope: Where zeros are kept; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="frozen_mask",
        scope=Scope.model_validate(scope or {}),
        score=Nonzero(),
        schedule=Existing(sparsity=sparsity),
        budget=Global(),
        mask=Project(hold=True),
    )


METHOD = Method(
    name="frozen_mask",
    build=frozen_mask,
    summary="fine-tunes a sparse model and keeps its zeros; prunes nothing more",
    paper="Zafrir et al., Prune once for all, 2021, arXiv 2111.05754",
)
