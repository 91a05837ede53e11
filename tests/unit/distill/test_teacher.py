"""A teacher that is frozen and computes as its student does."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DistilBertForSequenceClassification

from helpers.distilling import DISTILBERT, EVERYTHING, batch, bert, no_dropout
from sentei.distill import Distiller
from sentei.distill.layers import Match
from sentei.distill.teacher import Autocast, FrozenTeacher, fingerprint
from sentei.parts.distillation import Distillation


def test_the_teacher_does_not_learn_or_drop():
    student, teacher = bert(0), bert(1).train()
    distiller = Distiller(student, teacher, EVERYTHING)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    with distiller:
        student.train()(**batch()).loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.bert.encoder.parameters())
    dropping = Distillation(logits=1, teacher_dropout=True)
    assert Distiller(student, bert(1), dropping).teacher.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_the_teacher_computes_in_the_students_precision(dtype):
    """Also where autocast is inside the student's forward, as Accelerate puts it."""
    student, teacher = bert(0, **no_dropout()), bert(1)
    dtypes = []
    teacher.classifier.register_forward_hook(
        lambda module, args, output: dtypes.append(output.dtype)
    )
    if dtype:
        student.forward = torch.autocast("cpu", dtype=dtype)(student.forward)
    with Distiller(student, teacher, Distillation(logits=1)):
        student.train()(**batch())
    assert dtypes == [dtype or torch.float32]


def test_a_teacher_of_another_family():
    """DistilBERT has no place for the token types that BERT's batch carries."""
    torch.manual_seed(1)
    teacher = DistilBertForSequenceClassification(copy.deepcopy(DISTILBERT))
    student = bert(0)
    inputs = batch() | {"token_type_ids": torch.zeros(4, 9, dtype=torch.long)}
    with Distiller(student, teacher, EVERYTHING) as distiller:
        student.train()(**inputs).loss.backward()
    assert all(term > 0 for term in distiller.terms.values())


def test_a_layer_that_teaches_twice_is_computed_once():
    model = bert(1, num_hidden_layers=3)
    model.set_attn_implementation("eager")
    teacher = FrozenTeacher(model, Match(EVERYTHING, layers=(3, 1, 3)), cache=None)
    inputs = batch((9, 5, 3, 2))
    outputs = teacher.outputs(inputs, torch.device("cpu"), Autocast(False, torch.bfloat16))
    states = teacher.model(**inputs, output_hidden_states=True).hidden_states
    for tensor, layer in zip(outputs.hidden, (0, 3, 1, 3), strict=True):
        torch.testing.assert_close(tensor, states[layer])
    assert len(outputs.attention) == 3 and outputs.attention[0] is outputs.attention[2]


def test_a_teacher_without_logits_by_name_is_refused():
    teacher = bert(1)
    teacher.register_forward_hook(lambda module, args, output: output.to_tuple())
    with (
        Distiller(bert(0), teacher) as distiller,
        pytest.raises(ValueError, match="the teacher's output is a tuple without logits by name"),
    ):
        distiller.student.train()(**batch())


def test_a_fingerprint_knows_every_weight():
    teacher = bert(1)
    before = fingerprint(teacher)
    assert before == fingerprint(copy.deepcopy(teacher)) != fingerprint(bert(2))
    with torch.no_grad():
        teacher.classifier.bias[1] += 1e-6
    assert fingerprint(teacher) != before
