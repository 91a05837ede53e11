"""Parts that somebody else wrote, from what ``sentei.parts`` offers and nothing else.

Each keeps every promise that our own methods keep, and does what it says: it learns, it draws.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field

import sentei
from sentei.methods import Method
from sentei.parts import (
    Cubic,
    Global,
    Grouped,
    InputScore,
    Latent,
    Learned,
    Magnitude,
    Project,
    Score,
    Settling,
    StraightThrough,
    each_place,
    tiled,
    unlike,
)
from sentei.testing import CHECKS, Training


class Exploring(Latent):
    """In training a share of what is pruned takes part, drawn anew at every step."""

    kind: Literal["exploring"] = "exploring"
    stochastic: ClassVar[bool] = True
    memory: ClassVar[tuple[str, ...]] = ("alive",)

    share: float = Field(0.2, gt=0, lt=1)
    """Of the pruned weights."""

    @property
    def reads(self):
        return ("alive",)

    def draw_(self, memory, step, number):
        generator = torch.Generator(memory["alive"].device).manual_seed(step * 1009 + number)
        memory["alive"].bernoulli_(self.share, generator=generator)

    def sample_(self, weight, dense, keep, memory):
        weight.copy_(dense * (keep | memory["alive"].bool()))

    def score_gradient_(self, out, gradient, dense, memory, sampled):
        torch.mul(gradient, dense, out=out)

    def weight_gradient_(self, gradient, keep, memory, sampled):
        gradient.mul_((keep | memory["alive"].bool()) if sampled else keep)

    def write_(self, weight, dense, keep, memory):
        weight.copy_(dense * keep)


class Bargain(Settling):
    """A place keeps more, the more the loss would gain from its weights."""

    kind: Literal["bargain"] = "bargain"
    learned: ClassVar[bool] = True

    rate: float = Field(0.1, gt=0)
    """Of its descent."""

    def start(self, sizes, total, sparsity):
        return {"logit": torch.full((len(sizes),), 2.0, dtype=torch.float64)}

    def ratios(self, state):
        return torch.sigmoid(state["logit"])

    def learn_(self, state, mask, ratio, progress):
        state["logit"].sub_(self.rate * (torch.tanh(mask) + ratio))

    def split(self, sizes, progress, state, weights=()):
        if self.settled(progress):
            shares = [progress.sparsity] * len(sizes)
            return each_place(sizes, shares, progress.sparsity, unlike(weights))
        pruned = (1 - self.ratios(state)).tolist()
        total = sum(n * share for n, share in zip(sizes, pruned, strict=True)) / sum(sizes)
        return each_place(sizes, pruned, total)


class Votes(Score):
    """Counts, step by step, whether the loss wants a weight to stay."""

    kind: Literal["votes"] = "votes"
    memory: ClassVar[tuple[str, ...]] = ("votes",)
    per_unit: ClassVar[tuple[str, ...]] = memory
    learned: ClassVar[bool] = True

    def learn_(self, memory, gradient, progress):
        memory["votes"].lerp_(-gradient.sign(), 0.1).sub_(1e-3 * gradient)

    def value(self, memory, weight, out):
        return memory["votes"]

    def unit_value(self, memory):
        return memory["votes"]


class Touched(Score):
    """Per unit too, and written to ``out``, as a score may: the unit's place, last first."""

    kind: Literal["touched"] = "touched"
    memory: ClassVar[tuple[str, ...]] = ("place",)
    per_unit: ClassVar[tuple[str, ...]] = memory

    def start_(self, memory, weight, number):
        self.start_units_(memory, number)

    def start_units_(self, memory, number):
        place = memory["place"]
        place.copy_(torch.arange(place.numel(), 0.0, -1.0).view_as(place) + number / 10)

    def value(self, memory, weight, out):
        return out.copy_(memory["place"])

    def unit_value(self, memory):
        return memory["place"].clone()


class Rare(InputScore):
    """Weights of inputs that seldom do anything stay."""

    kind: Literal["rare"] = "rare"
    statistic: ClassVar[str] = "products"

    def worth(self, statistic):
        return 1 / (statistic.abs().sum(1) + 1e-6)

    def value(self, memory, weight, out):
        return torch.mul(memory["worth"], out.copy_(weight).abs_(), out=out)


class Pairs(Grouped):
    """Two rows that stand together fall together."""

    kind: Literal["pairs"] = "pairs"

    def group(self, sites, structures):
        return tiled(self, sites, 2, None)


def method(name: str, **parts: Any) -> Method:
    """A method of foreign parts, on a ramp that leaves time to settle."""

    def build(sparsity: float = 0.7) -> sentei.Recipe:
        schedule = Cubic(sparsity=sparsity, cooldown=0.4, every=2, cooldown_every=2)
        return sentei.Recipe(**{"method": name, "schedule": schedule, "score": Magnitude()} | parts)

    return Method(name=name, build=build, summary="foreign", paper="none")


LATENT = StraightThrough()
FOREIGN = [
    method("exploring", mask=Exploring(), score=Learned()),
    method("exploring_global", mask=Exploring(), budget=Global()),
    method("bargain", budget=Bargain(), mask=LATENT),
    method("votes", score=Votes(), mask=LATENT),
    method("pairs", pattern=Pairs(), mask=Project(hold=True)),
    method("everything", pattern=Pairs(), score=Votes(), budget=Bargain(), mask=Exploring()),
    method("rare", score=Rare(), mask=Project(hold=True)),
    method("rare_pairs", score=Rare(decisions=3), pattern=Pairs(), mask=Project(hold=False)),
    method("touched", score=Touched(), mask=Project(hold=True)),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.name)
def test_method(foreign, check):
    check(foreign)


def state(name: str, steps: int = 30) -> tuple[Training, dict[str, Any]]:
    chosen = next(foreign for foreign in FOREIGN if foreign.name == name)
    run = Training(chosen.build()).run(steps)
    return run, run.pruner.state_dict()


@pytest.mark.parametrize("name", ["exploring", "exploring_global", "everything"])
def test_a_foreign_mask_draws_at_every_step(name):
    """Seen in the forward pass of training, and gone in evaluation."""
    run, saved = state(name)
    before = [memory["alive"].clone() for memory in saved["memory"].values()]
    assert all(0.1 < float(alive.mean()) < 0.3 for alive in before)
    run.step()
    after = [memory["alive"] for memory in run.pruner.state_dict()["memory"].values()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    masks, weights = run.pruner.masks, dict(run.model.named_parameters())
    run.model(run.inputs[0])
    assert any(bool((weights[site][~keep] != 0).any()) for site, keep in masks.items())
    run.model.eval()(run.inputs[0])
    assert not any(bool((weights[site][~keep] != 0).any()) for site, keep in masks.items())


def test_a_foreign_budget_learns():
    run, saved = state("bargain")
    logits = saved["budget"]["logit"].tolist()
    assert len({round(logit, 6) for logit in logits}) == len(logits)
    ratios = run.pruner.ratios
    kept = {name: float(mask.float().mean()) for name, mask in run.pruner.masks.items()}
    assert ratios.keys() == kept.keys()
    assert all(abs(kept[name] - ratio) < 0.05 for name, ratio in ratios.items())


@pytest.mark.parametrize("name", ["votes", "everything"])
def test_a_foreign_score_learns(name):
    _, saved = state(name)
    memories = saved["units"] if saved["units"] else saved["memory"]
    assert all(bool(memory["votes"].abs().max() > 0.1) for memory in memories.values())


@pytest.mark.parametrize("pattern", ["unstructured", "row", "pairs"])
def test_scores_of_units_are_not_written_over(pattern):
    recipe = next(foreign for foreign in FOREIGN if foreign.name == "touched").build(0.5)
    recipe = sentei.override(recipe, [f"pattern={pattern}"])
    run = Training(recipe).run(40)
    saved = run.pruner.state_dict()
    memories = saved["units"] if pattern != "unstructured" else saved["memory"]
    for number, memory in enumerate(memories.values()):
        place = memory["place"].view(-1)
        assert torch.equal(place, torch.arange(place.numel(), 0.0, -1.0) + number / 10)
    for mask in run.pruner.masks.values():  # the first are worth most
        assert bool(mask.view(-1)[0]) and not bool(mask.view(-1)[-1])
    run.finish()


def test_pairs_fall_together():
    run, _ = state("pairs", 40)
    for mask in run.pruner.masks.values():
        rows = mask.view(-1, 2, mask.shape[1])
        assert bool((rows == rows[:, :1, :1]).all())
