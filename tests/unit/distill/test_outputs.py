"""What is read out of a model's output."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput

from helpers.distilling import EVERYTHING, bert
from sentei.distill.outputs import logits_of, select
from sentei.parts.distillation import Distillation

LOGITS = torch.zeros(4, 2)


def test_logits_are_found_by_name():
    assert logits_of({"logits": LOGITS}) is LOGITS
    assert logits_of(SequenceClassifierOutput(logits=LOGITS)) is LOGITS
    assert logits_of((LOGITS,)) is logits_of({"loss": LOGITS}) is None
    spans = QuestionAnsweringModelOutput(start_logits=LOGITS, end_logits=LOGITS + 1)
    assert torch.equal(logits_of(spans), torch.stack([LOGITS, LOGITS + 1], dim=-1))


def test_the_matched_layers_are_selected():
    states = [torch.full((4, 9, 32), float(i)) for i in range(3)]
    scores = [torch.full((4, 4, 9, 9), float(i)) for i in (1, 2)]
    output = {"logits": LOGITS, "hidden_states": states}
    outputs = select(output, scores, [2, 1, 2], EVERYTHING, bert(), "student")
    assert [int(tensor[0, 0, 0]) for tensor in outputs.hidden] == [0, 2, 1, 2]
    assert [int(tensor[0, 0, 0, 0]) for tensor in outputs.attention] == [2, 1, 2]
    assert outputs.logits is LOGITS and not outputs.spans
    hidden = select(output, [], [1], Distillation(hidden=1), bert(), "student")
    assert len(hidden.hidden) == 2 and not hidden.attention
    alone = select(output, scores, [], Distillation(), bert(), "student")
    assert not alone.hidden and not alone.attention


def test_another_number_of_layers_is_refused():
    output = {"logits": LOGITS, "hidden_states": [LOGITS] * 4}
    with pytest.raises(ValueError, match="the teacher has 2 layers and returned 4 hidden states"):
        select(output, [LOGITS] * 2, [1, 2], EVERYTHING, bert(), "teacher")
    with pytest.raises(ValueError, match="returned none hidden states, where 3 were expected"):
        select({"logits": LOGITS}, [LOGITS] * 2, [1, 2], EVERYTHING, bert(), "teacher")
    output = {"logits": LOGITS, "hidden_states": [LOGITS] * 3}
    with pytest.raises(ValueError, match="the student has 2 layers and took 0"):
        select(output, [], [1, 2], EVERYTHING, bert(), "student")
