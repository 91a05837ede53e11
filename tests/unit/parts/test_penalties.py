"""Penalties: when they act, what they refuse. Their gradients: see tests/faithful."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import sentei
from helpers.progress import BEHIND, progress
from sentei.parts.penalties import Penalty, ScoreL1, ScorePush
from sentei.testing import Network


@BEHIND
def test_a_penalty_that_follows_is_as_strong_as_the_sparsity_is_behind(reached, follow, share):
    now = progress(reached=reached)
    rising = ScoreL1(coefficient=8.0, follow=follow)
    assert rising.strength(now) == pytest.approx(4.0 * share)
    gradient = torch.zeros(3)
    rising.add_(gradient, torch.zeros(3), 0.5, now)
    assert gradient.tolist() == pytest.approx([0.5 * share] * 3)


@pytest.mark.parametrize(("total", "share"), [(500, 0.8), (2000, 0.5), (18_000, 0.1)])
def test_a_push_is_alike_for_all_scores_and_fades_with_the_length_of_training(total, share):
    now, scores = progress(step=1, total=total), torch.tensor([-9.0, 0.0, 9.0])
    for push, part in ((ScorePush(), share), (ScorePush(fades=None), 1.0)):
        gradient = torch.tensor([1.0, -2.0, 6.0])
        push.add_(gradient, scores, torch.tensor(3.0), now)
        expected = torch.tensor([1.0, -2.0, 6.0]) + 3 * 3 * part
        torch.testing.assert_close(gradient, expected)


def test_a_penalty_that_counts_no_examples_is_as_it_was():
    assert ScoreL1(coefficient=1).with_examples(7) == ScoreL1(coefficient=1)


def test_kinds():
    assert "score_l1" in Penalty.kinds()
    assert Penalty.model_validate({"kind": "score_l1", "coefficient": 2}) == ScoreL1(coefficient=2)
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
    message = r"penalties\.0\.units: pattern row has no units of the kind 'head'; it has row"
    with pytest.raises(ValueError, match=message):
        sentei.Pruner(Network(), recipe, total_steps=100)
