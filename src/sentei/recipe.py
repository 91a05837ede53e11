"""The declaration of a pruning method: parts that fit each other, and a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sentei.distributed import Ranks
from sentei.messages import listing, short
from sentei.parts.budget import Budget, Global
from sentei.parts.distillation import Distillation
from sentei.parts.inputs import Inputs, linear_maps
from sentei.parts.masks import Mask, Project
from sentei.parts.part import Part, parts_of
from sentei.parts.patterns import Pattern, UnitGroup, Unstructured
from sentei.parts.penalties import Penalty, ScorePenalty
from sentei.parts.reconstruction import Reconstruction
from sentei.parts.schedule import Schedule
from sentei.parts.scope import Scope, Selection, coupled_structures
from sentei.parts.scores import InputScore, Score
from sentei.tensors import count_zeros, score_dtype

MOST_STEPS: Final = 10**8
"""Of one training: years, on whatever machine."""

LEAST_SHARE: Final = 1 / 32
"""Of a mean in bf16, which rounds by up to 2^-8: it then comes to within an eighth of what is
observed, and with platon's averages to within 8 %."""


class Recipe(Part):
    """A pruning method, declared: scope, pattern, score, schedule, budget, mask, reconstruction,
    penalties, teacher.
    """

    method: str = Field(min_length=1)
    """Its name, for people; the parts decide what happens."""

    scope: Scope = Scope()
    """The prunable weights."""

    pattern: Pattern = Unstructured()
    """The shape of a hole: what is kept or pruned together."""

    score: Score
    """What a weight is worth."""

    schedule: Schedule
    """How much is pruned when."""

    budget: Budget = Global()
    """How the sparsity is spread over the sites."""

    mask: Mask = Project()
    """How a decision reaches the weights."""

    reconstruction: Reconstruction | None = None
    """How kept weights take over what pruned ones did; None leaves that to training."""

    penalties: tuple[Penalty, ...] = ()
    """Terms of the objective on weights, scores and ratios."""

    distill: Distillation | None = None
    """What a teacher adds to the loss; None trains on the labels alone."""

    dropout: float = Field(1.0, ge=0, le=1)
    """Factor on the model's dropout probabilities while it is pruned: 1 leaves them, 0 is none."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        for part in parts_of(self):
            part.fits(self)
        return self

    def check(self, total_steps: int) -> None:
        """Refuse what cannot work in ``total_steps`` optimizer steps.

        Raises:
            ValueError: The schedule does not fit, the first decision comes before the first score,
                or a penalty lacks something.
        """
        if total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: pruning needs an optimizer step")
        if total_steps > MOST_STEPS:
            raise ValueError(
                f"total_steps={short(total_steps)}: at most {MOST_STEPS:,} are planned; train for "
                "fewer epochs"
            )
        self.schedule.check(total_steps)
        self.pattern.check(self.schedule.sparsity)
        self.score.check(self.schedule.first_update(total_steps))
        for penalty in self.penalties:
            penalty.check()

    @property
    def inputs(self) -> Inputs | None:
        """How the inputs of linear layers are observed; None where no part wants them."""
        if isinstance(self.score, InputScore):
            return self.score.inputs
        return self.reconstruction.inputs if self.reconstruction else None

    def at_once(self) -> Recipe:
        """The recipe with one decision and no training.

        Raises:
            ValueError: It has a part that acts in training.
        """
        score, budget, schedule = self.score, self.budget, self.schedule
        reasons = {
            f"score {score.label} is measured step by step": score.observes,
            f"score {score.label} is learned": score.learned,
            f"budget {budget.label} comes out of training": budget.learned or budget.emergent,
            f"schedule {schedule.label} prunes nothing": schedule.from_model,
            "it learns from a teacher (distill)": self.distill is not None,
            **{f"penalty {penalty.label} acts in training": True for penalty in self.penalties},
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            raise ValueError(
                f"{self.method} cannot prune at once, without training: {reason}. Train with it "
                "(--epochs above 0), or take magnitude, wanda or obs, which read no gradient"
            )
        return self.model_copy(update={"schedule": schedule.at_once()})

    def with_examples(self, examples: int | None) -> Recipe:
        """The recipe with the number of training examples where a penalty lacks it."""
        if examples is None:
            return self
        penalties = tuple(penalty.with_examples(examples) for penalty in self.penalties)
        return self.model_copy(update={"penalties": penalties})

    def check_state(self, dtype: torch.dtype) -> None:
        """Refuse a precision in which the memory of the score cannot be kept.

        Args:
            dtype: Of running means: ``torch.float32``, which is float64 for float64 weights, or
                ``torch.bfloat16``.

        Raises:
            ValueError: It is another, or bf16 and the score remembers other things than means, or
                means of so many steps that bf16 leaves out what one moves them by.
        """
        score = self.score
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(
                f"state_dtype={dtype}: what scores remember is kept in torch.float32, or in "
                "torch.bfloat16, which has the same range"
            )
        if dtype == torch.float32:
            return
        if set(score.memory) <= set(score.means):
            if score.share < LEAST_SHARE:
                raise ValueError(
                    f"{self.method} cannot keep its state in bf16: a step moves a mean of score "
                    f"{score.label} by as little as {score.share:.3g} of the way, most of which "
                    f"bf16 leaves out: at least {LEAST_SHARE:g} is needed. Leave it in float32, or "
                    "average over fewer steps (score.window, score.beta)"
                )
            return
        others = [name for name in score.memory if name not in score.means]
        reason = f"score {score.label} remembers {listing(others, 3)}, which is no running mean"
        if score.learned:
            reason = (
                f"score {score.label} is trained by steps that are smaller than what bf16 leaves "
                "out of it, and would stand still"
            )
        raise ValueError(
            f"{self.method} cannot keep its state in bf16: {reason}. Leave it in float32, or use "
            "auto, platon or sensitivity"
        )

    def fit(
        self,
        model: nn.Module,
        total_steps: int,
        examples: int | None = None,
        state_dtype: torch.dtype = torch.float32,
    ) -> Fitted:
        """The recipe for a training of a model, nothing left open.

        Args:
            model: The model that will be trained, wrapped or not, with the weights it starts from.
            total_steps: Optimizer steps of the training.
            examples: Number of training examples, for recipes with a prior on the weights.
            state_dtype: In which running means are kept, see :meth:`check_state`.

        Raises:
            ValueError: It cannot work in so many steps, the scope or the pattern does not fit the
                model, its schedule takes the sparsity from the model and does not find it, or its
                state cannot be kept in ``state_dtype``.
        """
        recipe = self.with_examples(examples)
        recipe.check(total_steps)
        recipe.check_state(state_dtype)
        selection, groups = recipe.lay_units(model)
        return Fitted(recipe.for_weights(selection), selection, groups, state_dtype)

    def lay_units(self, model: nn.Module) -> tuple[Selection, tuple[UnitGroup, ...]]:
        """The prunable weights of a model, and the units that decisions are about.

        Raises:
            ValueError: The scope or the pattern does not fit the model.
        """
        selection = self.scope.resolve(model)
        _check_precision(selection)
        structures = coupled_structures(model) if self.pattern.coupled else ()
        self.pattern.check_roles({site.role for site in selection.sites})
        groups = self.pattern.arrange(selection.sites, structures)
        self._check_penalties(groups)
        covered = {site for group in groups for site in group.sites}
        rest = {place for place, site in enumerate(selection.sites) if site not in covered}
        if rest:
            reason = f"pattern {self.pattern.label} does not cover it"
            selection = selection.without(rest, reason)
        self._check_inputs(model, selection)
        return selection, groups

    def for_weights(self, selection: Selection) -> Recipe:
        """The recipe with the schedule for the zeros that the selected weights have now.

        Raises:
            ValueError: They are dense, or less sparse than they must be.
        """
        if not self.schedule.from_model:
            return self
        ranks = Ranks([site.parameter for site in selection.sites])
        zeros = ranks.total(sum(count_zeros(site.parameter) for site in selection.sites))
        schedule = self.schedule.resolve(zeros, selection.prunable)
        return self.model_copy(update={"schedule": schedule})

    def _check_inputs(self, model: nn.Module, selection: Selection) -> None:
        """Refuse weights whose inputs a part wants and cannot have."""
        maps = linear_maps(model, selection.sites) if self.inputs else {}
        others = [site.name for site in selection.sites if site not in maps]
        if isinstance(self.score, InputScore) and others:
            raise ValueError(
                f"score {self.score.label} ranks the weights of linear layers by their inputs, and "
                f"{listing(others, 3)} is no matrix of one: leave it out with "
                f"scope.exclude=({others[0]!r},) or a pattern, and with scope.biases=false"
            )
        if self.reconstruction and not maps:
            raise ValueError(
                "reconstruction: none of the prunable weights is the matrix of a linear layer, "
                "whose inputs could be observed: set reconstruction to null"
            )

    def _check_penalties(self, groups: tuple[UnitGroup, ...]) -> None:
        patterns = tuple(dict.fromkeys(group.pattern for group in groups))
        for number, penalty in enumerate(self.penalties):
            for pattern in penalty.units if isinstance(penalty, ScorePenalty) else ():
                if pattern not in patterns:
                    raise ValueError(
                        f"penalties.{number}.units: pattern {self.pattern.label} has no units of "
                        f"the kind {pattern!r}; it has {', '.join(patterns)}"
                    )

    @property
    def bytes_per_weight(self) -> int:
        """Memory the pruner keeps per prunable float32 weight: score, mask, and a bool.

        Of what units of many weights share, nothing is counted.
        """
        names = [*self.score.memory, *self.mask.memory]
        if self.pattern.pools:
            shared = {*self.score.per_unit, *self.mask.per_unit}
            names = [name for name in names if name not in shared]
        return 4 * (len(names) + self.mask.latent) + 1


@dataclass(frozen=True)
class Fitted:
    """A recipe for one training of one model.

    ``recipe`` is complete, ``selection`` the prunable weights, ``groups`` the units over them that
    decisions are about; running means are kept in ``state_dtype``.
    """

    recipe: Recipe
    selection: Selection
    groups: tuple[UnitGroup, ...]
    state_dtype: torch.dtype = torch.float32

    def memory_dtype(self, name: str, weight: Tensor) -> torch.dtype:
        """The precision in which a memory of ``weight`` is kept."""
        narrow = self.state_dtype == torch.bfloat16 and name in self.recipe.score.means
        return torch.bfloat16 if narrow else score_dtype(weight)

    @property
    def state_bytes(self) -> int:
        """Memory of masks, of what score and mask remember, and of latent weights, where no weight
        is sharded. What observing inputs takes comes on top, as do copies for the time of a step.
        """
        score, mask = self.recipe.score, self.recipe.mask
        names, shared = {*score.memory, *mask.memory}, {*score.per_unit, *mask.per_unit}
        pooled = [group for group in self.groups if group.pooled]
        sites = {site for group in pooled for site in group.sites}
        total = 0
        for site in self.selection.sites:
            weight, own = site.parameter, names - shared if site in sites else names
            each = 1 + mask.latent * weight.itemsize
            each += sum(self.memory_dtype(name, weight).itemsize for name in own)
            total += weight.numel() * each
        for group in pooled:
            each = 1 + len(shared) * score_dtype(group.sites[0].parameter).itemsize
            total += group.count * each
        return total


def _check_precision(selection: Selection) -> None:
    """Refuse scores of two precisions: in one ranking, a threshold would be two numbers."""
    double = [site.parameter.dtype == torch.float64 for site in selection.sites]
    if any(double) and not all(double):
        one, other = (selection.sites[double.index(kind)].name for kind in (True, False))
        raise ValueError(
            f"{one} is float64 and {other} is not, and their scores would be ranked together: cast "
            "the model to one of them"
        )


def check_type(recipe: object) -> None:
    """Refuse what is no recipe.

    Raises:
        TypeError: It is a method's name, or anything else.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"recipe: expected a Recipe, found {recipe!r}: make one with a method, such as "
            "sentei.auto(0.9), or with sentei.load(file)"
        )
