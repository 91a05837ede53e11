"""How far an engine is from its model: differences and answers, padding left out."""

from __future__ import annotations

import math

import pytest
import torch

from sentei.export.agreement import compare

MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
TEXTS = {"input_ids": MASK, "attention_mask": MASK}


def agreement(exact: dict, other: dict, inputs=TEXTS):
    return compare(lambda batch: exact, lambda batch: other, [inputs])


def test_the_same_outputs_agree_wholly():
    logits = {"logits": torch.tensor([[1.0, 2.0], [2.0, 1.0]])}
    found = agreement(logits, logits)
    assert (found.relative, found.most, found.same, found.answers) == (0.0, 0.0, 2, 2)
    assert found.examples == 2


def test_differences_are_of_all_outputs_and_the_largest():
    exact, other = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[3.0, 0.0], [0.5, 4.0]])
    found = agreement({"logits": exact}, {"logits": other})
    assert found.most == 0.5 and found.relative == pytest.approx(0.1)
    assert found.same == found.answers == 2


def test_an_answer_that_changed_is_counted():
    exact, other = torch.tensor([[3.0, 2.9], [0.0, 4.0]]), torch.tensor([[2.8, 2.9], [0.0, 4.0]])
    found = agreement({"logits": exact}, {"logits": other})
    assert (found.same, found.answers) == (1, 2)


def test_tokens_that_are_padding_do_not_count():
    exact = torch.zeros(2, 3, 2)
    other = torch.where(MASK.bool()[..., None], exact, 7.0)
    found = agreement({"logits": exact}, {"logits": other})
    assert (found.most, found.same, found.answers) == (0.0, 4, 4)


def test_as_many_classes_as_tokens_are_no_tokens():
    """Two texts of three tokens, and three classes."""
    exact, other = torch.zeros(2, 3), torch.zeros(2, 3)
    other[1, 2] = 7.0
    found = agreement({"logits": exact}, {"logits": other})
    assert (found.most, found.same, found.answers) == (7.0, 1, 2)


def test_an_answer_in_a_text_is_one_of_its_own_tokens():
    exact = torch.tensor([[0.0, 5.0, 1.0], [1.0, 0.0, 0.0]])
    other = torch.tensor([[0.0, 5.0, 1.0], [1.0, 9.0, 9.0]])
    found = agreement({"start_logits": exact}, {"start_logits": other})
    assert (found.most, found.same, found.answers) == (0.0, 2, 2)


def test_what_is_written_has_no_padding_of_what_is_read():
    inputs = TEXTS | {"decoder_input_ids": torch.ones(2, 3, dtype=torch.long)}
    exact, other = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    other[1, 2, 3] = 1.0
    states = torch.zeros(2, 3, 4)
    exact, other = (
        {"logits": one, "encoder_last_hidden_state": padded}
        for one, padded in ((exact, states), (other, states + 5 * (1 - MASK[..., None])))
    )
    found = agreement(exact, other, inputs)
    assert (found.most, found.same, found.answers) == (1.0, 5, 6)


@pytest.mark.parametrize("name", ["last_hidden_state", "logits"])
def test_a_body_and_a_regression_give_no_answers(name):
    value = torch.ones(2, 3, 4) if name == "last_hidden_state" else torch.ones(2, 1)
    assert agreement({name: value}, {name: value}).answers == 0


def test_what_is_not_finite_differs_infinitely():
    exact = {"logits": torch.ones(2, 2)}
    found = agreement(exact, {"logits": exact["logits"] * math.nan})
    assert found.relative == found.most == math.inf
