"""Penalties: when they act, what they refuse. Their gradients: see tests/faithful."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import sentei
from sentei.methods.l0 import ExpectedL0
from sentei.methods.leap import ExcessRatio
from sentei.methods.mgpp import MixtureGaussian
from sentei.methods.proximal import ReweightedL1
from sentei.parts.penalties import Penalty, ScoreL1
from sentei.parts.progress import Progress
from sentei.testing import Network


def moment(*, sparsity=0.4, reached=0.0, ramp=0.5, final=0.8):
    return Progress(step=5, total=100, sparsity=sparsity, final=final, reached=reached, ramp=ramp)


@pytest.mark.parametrize(
    ("reached", "follow", "share"),
    [
        (0.3, True, 1.0),
        (0.39, True, 0.2),
        (0.4, True, 0.0),
        (0.41, True, -0.2),
        (0.9, True, -1.0),
        (0.9, False, 1.0),
    ],
)
def test_a_penalty_that_follows_is_as_strong_as_the_sparsity_is_behind(reached, follow, share):
    now = moment(reached=reached)
    gated = ExpectedL0(coefficient=8.0, follow=follow)
    rising = ScoreL1(coefficient=8.0, follow=follow)
    assert gated.strength(now) == pytest.approx(8.0 * share)
    assert rising.strength(now) == pytest.approx(4.0 * share)
    gradient = torch.zeros(3)
    rising.add_(gradient, torch.zeros(3), 0.5, now)
    assert gradient.tolist() == pytest.approx([0.5 * share] * 3)


@pytest.mark.parametrize("until", ["ramp", "end"])
def test_the_prior_acts_up_to_the_last_step_of_the_ramp(until):
    prior = MixtureGaussian(until=until, examples=10)

    def acts(ramp):
        gradient, weight = torch.zeros(2), torch.tensor([0.1, -1e-5])
        prior.add_(gradient, weight, moment(ramp=ramp), torch.empty(2))
        return bool(gradient.all())

    assert [acts(ramp) for ramp in (-2.0, 0.0, 1.0)] == [True] * 3
    assert [acts(ramp) for ramp in (1.01, 4.0)] == [until == "end"] * 2


def test_the_prior_adds_to_what_is_there():
    prior, weight = MixtureGaussian(examples=10), torch.tensor([0.5, -0.25])
    gradient = torch.tensor([1.0, 2.0])
    prior.add_(gradient, weight, moment(), torch.empty(2))
    assert gradient.tolist() == pytest.approx([1 + 0.5 / 0.5, 2 - 0.25 / 0.5])
    assert weight.tolist() == [0.5, -0.25]


def test_the_number_of_examples_comes_from_the_data_unless_it_is_set():
    assert MixtureGaussian().with_examples(7).examples == 7
    assert MixtureGaussian(examples=3).with_examples(7).examples == 3
    assert ScoreL1(coefficient=1).with_examples(7) == ScoreL1(coefficient=1)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (MixtureGaussian(), r"mixture_gaussian needs the number of training examples: pass.*exam"),
        (MixtureGaussian(spike=0.1, slab=0.05, examples=1), r"spike=0\.1 must be below slab=0\.05"),
        (MixtureGaussian(spike=0.05, slab=0.05, examples=1), "must be below"),
    ],
)
def test_a_prior_that_cannot_be(prior, message):
    with pytest.raises(ValueError, match=message):
        prior.check()


def test_a_ratio_below_its_target_feels_nothing():
    sizes = torch.tensor([100.0, 100.0], dtype=torch.float64)
    ratios = torch.tensor([0.9, 0.2], dtype=torch.float64)
    excess = ExcessRatio()
    assert excess.gradient(ratios, sizes, moment(sparsity=0.45)).tolist() == [0.0, 0.0]
    # R = .55, k = .5: lambda = max(160 .05^2 / .25, 10) = 10; 2 x .05 x 10 / 2 each.
    found = excess.gradient(ratios, sizes, moment(sparsity=0.5)).tolist()
    assert found == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shrinking_keeps_sign_and_dtype(dtype):
    weight = torch.tensor([0.5, -0.5, 0.01, -0.01], dtype=dtype)
    ReweightedL1(coefficient=0.1, epsilon=0.1).shrink_(weight, 0.1, moment(), torch.empty(4))
    left = 0.5 - 0.01 / 0.6
    assert weight.dtype == dtype
    assert weight.tolist() == pytest.approx([left, -left, 0, 0], rel=4e-3)


def test_kinds():
    assert set(Penalty.kinds()) >= {
        "mixture_gaussian",
        "reweighted_l1",
        "score_l1",
        "expected_l0",
        "excess_ratio",
    }
    assert Penalty.model_validate("excess_ratio") == ExcessRatio()
    with pytest.raises(ValueError, match="did you mean 'score_l1'"):
        Penalty.model_validate("score_l2")


def test_a_penalty_can_be_for_one_kind_of_unit():
    """Each kind's coefficient is of the mean over its own places; seen in Adam's first average."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            vocab_size=20,
        )
    )
    recipe = sentei.soft_movement(0.5, pattern="neuron+4x4", warmup=0, settle=None)
    both = (
        ScoreL1(coefficient=3.0, follow=False, units=("neuron",)),
        ScoreL1(coefficient=5.0, follow=False, units=("4x4",)),
    )
    pruner = sentei.Pruner(model, recipe.model_copy(update={"penalties": both}), total_steps=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.attach(optimizer)
    for _ in range(2):  # the penalty rises with the sparsity that the first decision was made at
        (model(torch.arange(6)[None]).logits.sum() * 0).backward()
        optimizer.step()
        optimizer.zero_grad()
    share = pruner.recipe.schedule.at(1, 100) / 0.5
    for name, tensors in pruner.state_dict()["units"].items():
        coefficient, places = (3.0, 2) if name.startswith("neuron") else (5.0, 8)
        gradient = share * coefficient / (places * tensors["score"].numel()) / 4
        # beta1 is 0.9, and the first step had no penalty
        assert tensors["exp_avg"].tolist() == pytest.approx(
            [0.1 * gradient] * tensors["score"].numel(), rel=1e-5
        )


def test_a_penalty_for_units_that_are_not_there_is_refused():
    penalty = ScoreL1(coefficient=1.0, units=("head", "rows"))
    recipe = sentei.soft_movement(0.5, pattern="row").model_copy(update={"penalties": (penalty,)})
    told = r"penalties\.0\.units: pattern row has no units of the kind 'head'; it has row"
    with pytest.raises(ValueError, match=told):
        sentei.Pruner(Network(), recipe, total_steps=100)
