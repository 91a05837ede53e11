"""Which layer learns from which, and which models fit each other."""

from __future__ import annotations

import pytest
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from helpers.distilling import BART, batch, bert, no_dropout, regressor
from sentei.distill import Distiller
from sentei.distill.layers import layer_map, match
from sentei.parts.distillation import Distillation

TERMS = Distillation(labels=0, logits=1, hidden=1, attention=0.5)


def small(**changes):
    return bert(0, **{"hidden_size": 16, "num_attention_heads": 2} | changes)


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


def test_layers_named_are_checked():
    assert layer_map(2, 6, (1, 3)) == (1, 3)
    with pytest.raises(ValueError, match="names 1 layers of the teacher: the student has 2"):
        layer_map(2, 6, (3,))
    with pytest.raises(ValueError, match="names layer 7: the teacher's layers are 1 to 6"):
        layer_map(2, 6, (1, 7))
    with pytest.raises(ValueError, match="names layer 0"):
        layer_map(2, 6, (0, 6))


def test_a_match_describes_itself():
    both = match(small(), small(num_hidden_layers=4), TERMS)
    assert both.describe() == (
        "loss: logits (kl, temperature 2) + hidden + 0.5 x attention; layers: 1->2, 2->4"
    )
    assert any("student" in note and "sdpa to eager" in note for note in both.notes)
    logits = match(small(), small(num_hidden_layers=4), Distillation())
    assert logits.describe() == "loss: 0.5 x labels + 0.5 x logits (kl, temperature 2)"
    assert logits.layers == () == logits.notes


@pytest.mark.parametrize(
    ("changes", "distillation", "message"),
    [
        ({"hidden_size": 32}, TERMS, "hidden_size is 16 and the teacher's is 32"),
        ({"num_attention_heads": 4}, TERMS, "num_attention_heads is 2 and the teacher's is 4"),
        ({"num_labels": 3}, Distillation(), "num_labels is 2 and the teacher's is 3"),
        ({}, Distillation(hidden=1, layers=(1,)), "the student has 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, distillation, message):
    with pytest.raises(ValueError, match=message):
        match(small(), small(**changes), distillation)


def test_what_is_not_compared_may_differ():
    match(small(), small(hidden_size=32, num_attention_heads=4), Distillation(logits=1))
    match(small(), small(num_labels=3), Distillation(logits=0, hidden=1))


def test_encoder_decoders_are_refused_below_their_logits():
    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=20)
    model = T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match="encoder-decoder"):
        match(model, model, Distillation(hidden=1))


def test_hidden_states_that_cannot_be_compared():
    """Refused, and left out with a word where a recipe can do without its teacher."""
    student, wider, inputs = bert(0, **no_dropout()), bert(1, hidden_size=48), batch()
    with pytest.raises(ValueError, match="hidden_size is 32 and the teacher's is 48"):
        Distiller(student, wider, Distillation(hidden=1))
    bart = BartForSequenceClassification(BartConfig(**BART, num_labels=2))
    for teacher, reason in ((wider, "hidden_size is 32"), (bart, "is an encoder-decoder")):
        distillation = Distillation(hidden=1, required=False)
        distiller = Distiller(student, teacher, distillation)
        assert distiller.distillation == distillation.model_copy(update={"hidden": 0})
        (note,) = distiller.notes
        assert note.startswith("hidden states are left out: ") and reason in note
    with pytest.raises(ValueError, match="hidden_size is 32"):  # nothing else is asked of it
        Distiller(student, wider, Distillation(logits=0, hidden=1, required=False))
    with Distiller(student, wider, Distillation(hidden=1, required=False)) as distiller:
        student.train()(**inputs).loss.backward()
    assert distiller.terms.keys() == {"labels", "logits"}
    same = Distiller(student, bert(1), Distillation(hidden=1, required=False))
    assert same.distillation.hidden == 1 and not same.notes


def test_regression_without_a_teacher_takes_none():
    with pytest.raises(ValueError, match="the student predicts a number"):
        Distiller(regressor(0), regressor(1), Distillation(regression="alone"))
    Distiller(bert(0), bert(1), Distillation(regression="alone"))
