"""The declaration of a pruning method: parts that fit each other, and a model."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import nn

from sentei.parts.budget import AcrossSizes, Budget, Global, LearnedRatio
from sentei.parts.distillation import Distillation
from sentei.parts.masks import Gated, HardConcrete, Latent, Mask, Project
from sentei.parts.part import Part
from sentei.parts.patterns import NM, Hybrid, Pattern, Units, Unstructured
from sentei.parts.penalties import Penalty, RatioPenalty, ScorePenalty
from sentei.parts.schedule import Found, Schedule
from sentei.parts.scope import Scope, Selection, coupled_structures
from sentei.parts.scores import Present, Score
from sentei.tensors import count_zeros


class Recipe(Part):
    """A pruning method, declared: scope, pattern, score, schedule, budget, mask, penalties,
    teacher.
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

    penalties: tuple[Penalty, ...] = ()
    """Terms of the objective on weights, scores and ratios."""

    distill: Distillation | None = None
    """What a teacher adds to the loss; None trains on the labels alone."""

    dropout: float = Field(1.0, ge=0, le=1)
    """Factor on the model's dropout probabilities while it is pruned: 1 leaves them, 0 is none."""

    def check(self, total_steps: int) -> None:
        """Refuse what cannot work in ``total_steps`` optimizer steps.

        Raises:
            ValueError: The schedule does not fit, or the first decision comes before the first
                score.
        """
        if total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: pruning needs an optimizer step")
        self.schedule.check(total_steps)
        self.pattern.check(self.schedule.sparsity)
        self.score.check(self.schedule.first_update(total_steps))
        for penalty in self.penalties:
            penalty.check()

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        latent = isinstance(self.mask, Gated)
        if not latent and (self.score.learned or self.budget.learned):
            part = "score" if self.score.learned else "budget"
            raise ValueError(
                f"a learned {part} needs the mask's gradient, which mask: latent forms; mask is "
                f"{type(self.mask).__name__.lower()}"
            )
        if latent and self.score.observes_new:
            raise ValueError(
                "a latent mask takes gradients from pruned weights at the optimizer's step: "
                "use score.iterate=old with it"
            )
        if isinstance(self.mask, HardConcrete) and not self.score.learned:
            raise ValueError(
                "mask: hard_concrete is a gate over learned scores: use score: learned"
            )
        if isinstance(self.mask, Latent) and self.mask.reads and not self.score.learned:
            raise ValueError(
                "mask.surrogate: sigmoid is of learned scores: use score: learned, or surrogate: "
                "straight_through"
            )
        parts = self.pattern.parts if isinstance(self.pattern, Hybrid) else (self.pattern,)
        fixed = next((part for part in parts if isinstance(part, NM)), None)
        if fixed and isinstance(self.budget, LearnedRatio):
            raise ValueError(
                f"pattern {fixed.label} fixes how much of every matrix is kept: there is nothing "
                "for budget: learned_ratio to learn"
            )
        if fixed and isinstance(self.mask, HardConcrete):
            raise ValueError(
                f"pattern {fixed.label} keeps the best of every {fixed.of}, open or shut, and "
                "mask: hard_concrete shuts gates by their own log-odds: use another pattern, or "
                "another method"
            )
        if isinstance(self.score, Present):
            self._check_keeps_zeros()
        if isinstance(self.budget, AcrossSizes) and not self.pattern.pools:
            raise ValueError(
                f"budget: across_sizes ranks units of several weights, and pattern "
                f"{self.pattern.label} has single ones: use budget: global"
            )
        for number, penalty in enumerate(self.penalties):
            if isinstance(penalty, ScorePenalty) and not self.score.learned:
                raise ValueError(f"penalties.{number} is on learned scores: use score: learned")
            if isinstance(penalty, RatioPenalty) and not self.budget.learned:
                raise ValueError(
                    f"penalties.{number} is on learned ratios: use budget: learned_ratio"
                )
        return self

    def _check_keeps_zeros(self) -> None:
        """A score of two values cuts only where the zeros are counted, all of them together."""
        wanted = {
            "schedule": (self.schedule.found, "found"),
            "budget": (self.budget == Global(), "global"),
            "mask": (self.mask == Project(hold=True), "{kind: project, hold: true}"),
            "pattern": (isinstance(self.pattern, Unstructured), "unstructured"),
        }
        for part, (holds, fix) in wanted.items():
            if not holds:
                raise ValueError(
                    f"score: present keeps a model's zeros, weight by weight: use {part}: {fix} "
                    "with it"
                )

    def resolve(self, model: nn.Module) -> tuple[Selection, tuple[Units, ...]]:
        """The prunable weights of a model, and the units that decisions are about.

        Raises:
            ValueError: The scope or the pattern does not fit the model.
        """
        selection = self.scope.resolve(model)
        _check_ranks(selection)
        structures = coupled_structures(model) if self.pattern.coupled else ()
        self.pattern.check_roles({site.role for site in selection.sites})
        units = self.pattern.arrange(dict(enumerate(selection.sites)), structures)
        self._check_units(units)
        covered = sorted({site for made in units for site in made.sites})
        if len(covered) == len(selection.sites):
            return selection, units
        reason = f"pattern {self.pattern.label} does not cover it"
        places = {old: new for new, old in enumerate(covered)}
        return (
            selection.without(set(range(len(selection.sites))) - set(covered), reason),
            tuple(made.moved(places) for made in units),
        )

    def _check_units(self, units: tuple[Units, ...]) -> None:
        kinds = tuple(dict.fromkeys(made.kind for made in units))
        for number, penalty in enumerate(self.penalties):
            for kind in penalty.units if isinstance(penalty, ScorePenalty) else ():
                if kind not in kinds:
                    raise ValueError(
                        f"penalties.{number}.units: pattern {self.pattern.label} has no units of "
                        f"the kind {kind!r}; it has {', '.join(kinds)}"
                    )

    def with_examples(self, examples: int) -> Recipe:
        """The recipe with the number of training examples where a penalty lacks it."""
        penalties = tuple(penalty.with_examples(examples) for penalty in self.penalties)
        return self.model_copy(update={"penalties": penalties})

    def with_zeros(self, selection: Selection) -> Recipe:
        """The recipe with the sparsity of the weights selected, where its schedule finds it there.

        Raises:
            ValueError: They are dense, or less sparse than they must be.
        """
        if not isinstance(self.schedule, Found):
            return self
        zeros = sum(count_zeros(site.parameter) for site in selection.sites)
        schedule = self.schedule.taken(zeros, selection.prunable)
        return self.model_copy(update={"schedule": schedule})

    @property
    def bytes_per_weight(self) -> int:
        """Memory the pruner keeps per prunable float32 weight: score, mask, and a bool.

        Of what units of many weights share, nothing is counted.
        """
        names = [*self.score.memory, *self.mask.memory]
        if self.pattern.pools:
            shared = {*self.score.per_unit, *self.mask.per_unit}
            names = [name for name in names if name not in shared]
        return 4 * len(names) + 1


def _check_ranks(selection: Selection) -> None:
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
