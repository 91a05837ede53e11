"""Recipes: parts that fit each other, and a model."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
from pydantic import ValidationError
from torch import nn
from transformers import BertConfig, BertModel

import sentei
from helpers.recipes import recipe_of
from sentei.methods.frozen_mask import Existing, Nonzero
from sentei.methods.l0 import ExpectedL0, HardConcrete
from sentei.methods.leap import ExcessRatio, LearnedRatio
from sentei.methods.mgpp import MixtureGaussian
from sentei.methods.platon import Uncertainty
from sentei.methods.proximal import ReweightedL1
from sentei.parts.budget import AcrossSizes, Uniform
from sentei.parts.masks import Project, StraightThrough
from sentei.parts.patterns import NM, Hybrid, Row
from sentei.parts.penalties import ScoreL1
from sentei.parts.scores import Learned, Score
from sentei.serialization import dump, load, to_dict
from sentei.testing import STEPS, Network, make_sparse_

PLATON = sentei.platon(0.8)


class Votes(Score):
    """Somebody else's score: learned, and what it remembers has a name of its own."""

    kind: Literal["unit_votes"] = "unit_votes"
    memory: ClassVar[tuple[str, ...]] = ("votes",)
    learned: ClassVar[bool] = True

    def value(self, memory, weight, out):
        return memory["votes"]


class Shaking(Project):
    """Somebody else's mask: it samples weights, and keeps no dense ones aside."""

    kind: Literal["unit_shaking"] = "unit_shaking"
    stochastic: ClassVar[bool] = True


def test_recipes_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        PLATON.score.beta1 = 0.5
    assert hash(PLATON) == hash(sentei.platon(0.8)) and PLATON != sentei.platon(0.7)


@pytest.mark.parametrize("steps", [0, -5])
def test_check_needs_steps(steps):
    with pytest.raises(ValueError, match=f"total_steps={steps}"):
        PLATON.check(steps)


def test_check_needs_a_score_before_the_first_decision():
    with pytest.raises(ValueError, match=r"score\.window=30: the first decision comes at step 20"):
        sentei.platon(0.8, window=30).check(100)
    with pytest.raises(ValueError, match="leave none of the 100 training steps"):
        sentei.platon(0.8, warmup=0.5, cooldown=0.5).check(100)
    PLATON.check(100)


REFUSED = {
    "a learned score without its gradient": (
        {"score": Learned()},
        "a learned score needs the mask's gradient, which mask: straight_through forms; mask is "
        "project",
    ),
    "a learned budget without its gradient": (
        {"budget": LearnedRatio()},
        "a learned budget needs the mask's gradient, which mask: straight_through forms; mask is "
        "project",
    ),
    "gradients of weights that the mask has changed": (
        {"score": Uncertainty(), "mask": StraightThrough()},
        "a latent mask takes gradients from pruned weights at the optimizer's step: use "
        "score.iterate=old with it",
    ),
    "a gate without log-odds": (
        {"mask": HardConcrete()},
        "mask: hard_concrete is a gate over learned scores: use score: learned",
    ),
    "a gate under a pattern that opens what it shuts": (
        {"score": Learned(), "mask": HardConcrete(), "pattern": NM()},
        "pattern 2:4 keeps the best of every few, open or shut, and mask: hard_concrete shuts "
        "gates by their own log-odds: use another pattern, or another method",
    ),
    "a gate over scores that are called otherwise": (
        {"score": Votes(), "mask": HardConcrete()},
        "mask hard_concrete reads 'score', which score unit_votes does not remember: use score: "
        "learned, or another mask",
    ),
    "a sigmoid of what is not learned": (
        {"budget": LearnedRatio(), "mask": StraightThrough(surrogate="sigmoid")},
        "mask.surrogate: sigmoid is of learned scores: use score: learned, or surrogate: identity",
    ),
    "a sigmoid of scores that are called otherwise": (
        {"score": Votes(), "mask": StraightThrough(surrogate="sigmoid")},
        "mask straight_through reads 'score', which score unit_votes does not remember",
    ),
    "samples of weights that are not kept aside": (
        {"mask": Shaking()},
        "mask unit_shaking draws samples of weights that it does not keep aside: make it a Latent "
        "mask",
    ),
    "single weights ranked by their size": (
        {"budget": AcrossSizes()},
        "budget: across_sizes ranks units of several weights, and pattern unstructured has single "
        "ones: use budget: global",
    ),
    "a pattern that leaves nothing to learn": (
        {"pattern": NM(), "budget": LearnedRatio(), "mask": StraightThrough()},
        "pattern 2:4 fixes how much of every matrix is kept: there is nothing for budget: "
        "learned_ratio to learn",
    ),
    "a pattern that does so inside another": (
        {
            "pattern": Hybrid(parts=(Row(), NM())),
            "budget": LearnedRatio(),
            "mask": StraightThrough(),
        },
        "pattern 2:4 fixes how much of every matrix is kept: there is nothing for budget: "
        "learned_ratio to learn",
    ),
    "a penalty on scores that are not learned": (
        {"penalties": (ReweightedL1(), ScoreL1(coefficient=1))},
        "penalty score_l1 is on learned scores: use score: learned",
    ),
    "a penalty on gates that are not learned": (
        {"penalties": (ExpectedL0(coefficient=1),)},
        "penalty expected_l0 is on learned scores: use score: learned",
    ),
    "a penalty on ratios that are not learned": (
        {"score": Learned(), "mask": StraightThrough(), "penalties": (ExcessRatio(),)},
        "penalty excess_ratio is on learned ratios: use budget: learned_ratio",
    ),
    "a model's zeros on a schedule that asks for more": (
        {"score": Nonzero(), "mask": Project(hold=True)},
        "score: nonzero keeps a model's zeros, weight by weight: use schedule: existing with it",
    ),
    "a model's zeros counted matrix by matrix": (
        {"score": Nonzero(), "schedule": Existing(), "budget": Uniform()},
        "score: nonzero keeps a model's zeros, weight by weight: use budget: global with it",
    ),
    "a model's zeros that may regrow": (
        {"score": Nonzero(), "schedule": Existing()},
        "score: nonzero keeps a model's zeros, weight by weight: use mask: {kind: project, hold: "
        "true} with it",
    ),
    "a model's zeros in units": (
        {
            "score": Nonzero(),
            "schedule": Existing(),
            "mask": Project(hold=True),
            "pattern": Row(),
        },
        "score: nonzero keeps a model's zeros, weight by weight: use pattern: unstructured with it",
    ),
}


@pytest.mark.parametrize(("parts", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_parts_that_do_not_fit(parts, message):
    with pytest.raises(ValueError) as caught:
        recipe_of(**parts)
    assert message in str(caught.value)
    plain = {name: to_dict_of(part) for name, part in parts.items()}
    data = {"method": "x", "score": "magnitude", "schedule": {"kind": "cubic", "sparsity": 0.5}}
    with pytest.raises(ValueError) as caught:
        load({**data, **plain})
    assert str(caught.value).startswith("recipe: ") and message in str(caught.value)
    assert not isinstance(caught.value, ValidationError)


def to_dict_of(part):
    if isinstance(part, tuple):
        return [to_dict_of(one) for one in part]
    return part.model_dump(serialize_as_any=True)


@pytest.mark.parametrize(
    "parts",
    [
        {"score": Learned(), "mask": StraightThrough()},
        {"score": Learned(), "mask": HardConcrete(), "budget": LearnedRatio()},
        {"budget": LearnedRatio(), "mask": StraightThrough(), "penalties": (ExcessRatio(),)},
        {"score": Uncertainty(iterate="old"), "mask": StraightThrough()},
        {"score": Uncertainty(), "penalties": (MixtureGaussian(), ReweightedL1())},
        {
            "score": Learned(),
            "mask": StraightThrough(surrogate="sigmoid"),
            "penalties": (MixtureGaussian(examples=9), ScoreL1(coefficient=2, follow=False)),
        },
    ],
)
def test_parts_combine_freely(parts):
    recipe = recipe_of(**parts)
    assert load(dump(recipe)) == load(to_dict(recipe)) == recipe


def test_with_examples_fills_what_is_missing():
    recipe = recipe_of(penalties=(MixtureGaussian(), ReweightedL1(), MixtureGaussian(examples=5)))
    complete = recipe.with_examples(77)
    assert complete.penalties == (
        MixtureGaussian(examples=77),
        ReweightedL1(),
        MixtureGaussian(examples=5),
    )
    assert recipe.penalties[0].examples is None
    with pytest.raises(ValueError, match="needs the number of training examples"):
        recipe.check(100)
    complete.check(100)
    assert load(dump(complete)) == complete


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        (sentei.magnitude(), 1),
        (sentei.mgpp(), 1),
        (sentei.proximal(), 1),
        (sentei.knowledge_aware(), 1),
        (sentei.random(), 5),
        (sentei.leap(score="magnitude"), 5),
        (sentei.sensitivity(), 9),
        (sentei.platon(), 13),
        (sentei.movement(), 17),
        (sentei.soft_movement(), 17),
        (sentei.leap(), 17),
        (sentei.l0(), 21),
    ],
    ids=lambda value: getattr(value, "method", value),
)
def test_bytes_per_weight_are_those_of_the_cards(recipe, count):
    assert recipe.bytes_per_weight == count


def test_a_sigmoid_surrogate_is_of_learned_scores():
    with pytest.raises(ValueError, match="sigmoid is of learned scores"):
        sentei.override(sentei.leap(0.5, score="magnitude"), ["mask.surrogate=sigmoid"])


@pytest.mark.parametrize("steps", [0, 3, 11])
def test_schedule_that_does_not_fit(steps):
    model = Network()
    with pytest.raises(ValueError, match=r"total_steps=0|schedule|score"):
        sentei.Pruner(model, sentei.platon(0.7), total_steps=steps)


def test_scope_that_matches_nothing():
    recipe = sentei.platon(0.7, scope={"include": ["*.attn.*"]})
    with pytest.raises(ValueError, match="matched no weight"):
        sentei.Pruner(Network(), recipe, total_steps=STEPS)


def test_weights_of_two_precisions_are_not_ranked_together():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())
    with pytest.raises(ValueError, match=r"1\.weight is float64 and 0\.weight is not"):
        sentei.Pruner(model, sentei.magnitude(0.5, scope={"include": ["*.weight"]}), total_steps=50)


def test_fit_leaves_nothing_open():
    model = Network()
    recipe = recipe_of(penalties=(MixtureGaussian(),))
    fitted = recipe.fit(model, 100, examples=77)
    assert fitted.recipe == recipe_of(penalties=(MixtureGaussian(examples=77),))
    names = [f"blocks.{i}.weight" for i in range(4)]
    assert [site.name for site in fitted.selection.sites] == names
    assert [group.sites for group in fitted.groups] == [(site,) for site in fitted.selection.sites]
    assert [(group.count, group.weights) for group in fitted.groups] == [(256, 1)] * 4


def test_fit_takes_the_sparsity_from_a_model_that_has_it():
    model, recipe = Network(), sentei.frozen_mask(0.5)
    with pytest.raises(ValueError, match=r"0\.0000% of the 1,024 prunable weights"):
        recipe.fit(model, 100)
    make_sparse_(model, sentei.frozen_mask(0.6))
    fitted = recipe.fit(model, 100)
    assert fitted.recipe.schedule == Existing(sparsity=614 / 1024)
    assert recipe.schedule == Existing(sparsity=0.5)
    assert fitted.recipe.for_weights(fitted.selection) == fitted.recipe
    dense = recipe_of()
    assert dense.for_weights(fitted.selection) is dense


def test_what_a_pattern_does_not_cover_is_left_out_with_a_reason():
    model = BertModel(
        BertConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )
    fitted = sentei.magnitude(0.5, pattern="neuron").fit(model, 100)
    roles = {site.role for site in fitted.selection.sites}
    assert roles == {"ffn_in", "ffn_out"}
    reasons = {skipped.name: skipped.reason for skipped in fitted.selection.skipped}
    query = "encoder.layer.0.attention.self.query.weight"
    assert reasons[query] == "pattern neuron does not cover it"
    [group] = fitted.groups
    assert group.sites == tuple(fitted.selection.sites) and group.count == 16
