"""The losses by hand, and which layer learns from which."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from sentei.distill import losses
from sentei.distill.layers import layer_map, match
from sentei.parts.distillation import Distillation

# With T = 2 the teacher's logits (2 log 3, 0) give p = (3/4, 1/4), the student's (0, 0) q = 1/2.
TEACHER = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
STUDENT = torch.zeros(1, 2, dtype=torch.float64)


def test_kl_by_hand():
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert losses.logits_loss(STUDENT, TEACHER, "kl", 2.0).item() == pytest.approx(expected)
    two = losses.logits_loss(STUDENT.repeat(2, 1), TEACHER.repeat(2, 1), "kl", 2.0)
    assert two.item() == pytest.approx(expected)  # a mean over the batch, not over classes


def test_cross_entropy_by_hand():
    expected = math.log(2) / 2  # -(3/4 + 1/4) log 1/2, a mean over two classes, no T^2
    found = losses.logits_loss(STUDENT, TEACHER, "cross_entropy", 2.0)
    assert found.item() == pytest.approx(expected)


def test_squared_error_by_hand():
    found = losses.logits_loss(STUDENT, TEACHER, "mse", 2.0)
    assert found.item() == pytest.approx((2 * math.log(3)) ** 2 / 2)  # without temperature


def test_hidden_states_by_hand():
    ours = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [100.0, 100.0]]])
    theirs = torch.zeros_like(ours)
    real = torch.tensor([[1, 1], [1, 0]])
    one = (1 + 4 + 9 + 16 + 25 + 36) / 6
    assert losses.hidden_loss([ours], [theirs], real).item() == pytest.approx(one)
    assert losses.hidden_loss([ours] * 3, [theirs] * 3, real).item() == pytest.approx(3 * one)
    every = (91 + 2 * 100**2) / 8
    assert losses.hidden_loss([ours], [theirs], None).item() == pytest.approx(every)


def test_attention_scores_by_hand():
    low = torch.finfo(torch.float32).min
    ours = torch.tensor([[[[1.0, 2.0, low], [3.0, 4.0, -100.0], [7.0, 7.0, low]]]])
    theirs = torch.tensor([[[[0.0, 0.0, low], [0.0, 0.0, 5.0], [0.0, 0.0, low]]]])
    real = torch.tensor([[1, 1, 0]])
    assert losses.attention_loss([ours], [theirs], real).item() == pytest.approx(30 / 4)
    every = (30 + 25 + 49 + 49) / 9  # -100 and below are 0, in each model by itself
    assert losses.attention_loss([ours], [theirs], None).item() == pytest.approx(every)
    half = losses.attention_loss([ours.half()], [theirs.half()], real)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(30 / 4)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (3, 6, (2, 4, 6)),
        (4, 6, (2, 3, 5, 6)),
        (6, 6, (1, 2, 3, 4, 5, 6)),
        (1, 12, (12,)),
        (4, 2, (1, 1, 2, 2)),
    ],
)
def test_layers_are_spread_evenly_and_the_last_learns_from_the_last(student, teacher, expected):
    assert layer_map(student, teacher) == expected


def test_layers_asked_for_are_checked():
    assert layer_map(2, 6, (1, 3)) == (1, 3)
    with pytest.raises(ValueError, match="names 1 layers of the teacher: the student has 2"):
        layer_map(2, 6, (3,))
    with pytest.raises(ValueError, match="names layer 7: the teacher's layers are 1 to 6"):
        layer_map(2, 6, (1, 7))
    with pytest.raises(ValueError, match="names layer 0"):
        layer_map(2, 6, (0, 6))


def bert(**changes):
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 20,
        "max_position_embeddings": 16,
    }
    return BertForSequenceClassification(BertConfig(**sizes | changes))


EVERYTHING = Distillation(labels=0, logits=1, hidden=1, attention=0.5)


def test_a_match_describes_itself():
    found = match(bert(), bert(num_hidden_layers=4), EVERYTHING)
    assert found.describe() == (
        "loss: logits (kl, temperature 2) + hidden + 0.5 x attention; layers: 1->2, 2->4"
    )
    assert any("student" in note and "sdpa to eager" in note for note in found.notes)
    logits = match(bert(), bert(num_hidden_layers=4), Distillation())
    assert logits.describe() == "loss: 0.5 x labels + 0.5 x logits (kl, temperature 2)"
    assert logits.layers == () == logits.notes


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({"hidden_size": 32}, EVERYTHING, "hidden_size is 16 and the teacher's is 32"),
        ({"num_attention_heads": 4}, EVERYTHING, "num_attention_heads is 2 and the teacher's is 4"),
        ({"num_labels": 3}, Distillation(), "num_labels is 2 and the teacher's is 3"),
        ({}, Distillation(hidden=1, layers=(1,)), "the student has 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, asked, message):
    with pytest.raises(ValueError, match=message):
        match(bert(), bert(**changes), asked)


def test_what_is_not_compared_may_differ():
    match(bert(), bert(hidden_size=32, num_attention_heads=4), Distillation(logits=1))
    match(bert(), bert(num_labels=3), Distillation(logits=0, hidden=1))


def test_encoder_decoders_are_refused_below_their_logits():
    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)
    model = T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match="encoder-decoder"):
        match(model, model, Distillation(hidden=1))
