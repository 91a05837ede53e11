"""The losses by hand: of tensors, and through the hooks of small models."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForQuestionAnswering, BertForTokenClassification

from helpers.distilling import SIZES, batch, bert, no_dropout, regressor
from sentei.distill import Distiller, losses
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
    loss = losses.logits_loss(STUDENT, TEACHER, "cross_entropy", 2.0)
    assert loss.item() == pytest.approx(expected)


def test_squared_error_by_hand():
    loss = losses.logits_loss(STUDENT, TEACHER, "mse", 2.0)
    assert loss.item() == pytest.approx((2 * math.log(3)) ** 2 / 2)  # without temperature


def test_hidden_states_by_hand():
    ours = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [100.0, 100.0]]])
    theirs = torch.zeros_like(ours)
    real = torch.tensor([[1, 1], [1, 0]])
    one = (1 + 4 + 9 + 16 + 25 + 36) / 6
    assert losses.hidden_loss([ours], [theirs], real).item() == pytest.approx(one)
    assert losses.hidden_loss([ours] * 3, [theirs] * 3, real).item() == pytest.approx(3 * one)
    every = (91 + 2 * 100**2) / 8
    assert losses.hidden_loss([ours], [theirs], None).item() == pytest.approx(every)


def test_relative_errors_are_measured_by_the_teacher_s_own_size():
    ours = torch.tensor([[[1.0, 2.0], [3.0, 100.0]]])
    theirs = torch.tensor([[[2.0, 4.0], [6.0, 8.0]]])
    real = torch.tensor([[1, 0]])
    one = (1 + 4) / (4 + 16)
    assert losses.hidden_loss([ours], [theirs], real, relative=True).item() == pytest.approx(one)
    both = losses.hidden_loss([ours, ours], [theirs, 1e3 * theirs], None, relative=True).item()
    every = (1 + 4 + 9 + 92**2) / (4 + 16 + 36 + 64)
    far = ((1e3 * theirs - ours).square().sum() / (1e3 * theirs).square().sum()).item()
    assert both == pytest.approx(every + far)
    nothing = losses.attention_loss([ours[None]], [0 * ours[None]], None, relative=True)
    assert nothing.isfinite()


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


# --------------------------------------------------------------------------- through the hooks


def test_padding_says_nothing_unless_asked_to():
    """Each row alone and unpadded, against all in one padded batch."""
    student, teacher = bert(0, **no_dropout()).double(), bert(1).double()
    lengths = (9, 6, 4, 2)
    together = batch(lengths, width=9)
    hidden = Distillation(labels=0, logits=0, hidden=1)
    attention = Distillation(labels=0, logits=0, attention=1)
    student.train()
    for distillation, size in ((hidden, lambda n: n), (attention, lambda n: n * n)):
        with Distiller(student, teacher, distillation):
            padded = student(**together).loss
            wider = {**together}
            for name in ("input_ids", "attention_mask"):
                wider[name] = F.pad(together[name], (0, 5))
            assert student(**wider).loss.item() == pytest.approx(padded.item())
            alone = [
                student(
                    **{
                        k: v[i : i + 1, :n] if v.ndim > 1 else v[i : i + 1]
                        for k, v in together.items()
                    }
                ).loss
                for i, n in enumerate(lengths)
            ]
        weights = [size(n) for n in lengths]
        mean = sum(w * loss for w, loss in zip(weights, alone, strict=True)) / sum(weights)
        torch.testing.assert_close(padded, mean)
        counted = distillation.model_copy(update={"padding": True})
        with Distiller(student, teacher, counted):
            assert abs(student(**together).loss - student(**wider).loss) > 1e-4


@pytest.mark.parametrize("target", ["teacher", "labels"])
def test_regression_takes_the_squared_error(target):
    student, teacher = regressor(0), regressor(1)
    inputs = batch() | {"labels": torch.tensor([0.0, 0.5, 1.0, 2.0])}
    distillation = Distillation(labels=0, logits=1, logits_loss="kl", regression=target)
    with Distiller(student, teacher, distillation), torch.no_grad():
        outputs = student.train()(**inputs)
        theirs = teacher(**inputs).logits[:, 0] if target == "teacher" else inputs["labels"]
        torch.testing.assert_close(outputs.loss, F.mse_loss(outputs.logits[:, 0], theirs))


def test_classes_of_tokens_leave_padding_out():
    torch.manual_seed(0)
    config = BertConfig(**SIZES, **no_dropout())
    student = BertForTokenClassification(config)
    teacher = BertForTokenClassification(copy.deepcopy(config))
    inputs = batch((9, 5, 3, 2))
    labels = inputs["input_ids"] % 2
    inputs["labels"] = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    distillation = Distillation(labels=0, logits=1, temperature=1.0)
    with Distiller(student, teacher, distillation):
        loss = student.train()(**inputs).loss
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        ours, theirs = student(**inputs).logits[real], teacher(**inputs).logits[real]
        rows = F.kl_div(ours.log_softmax(-1), theirs.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(loss.detach(), rows.mean())


def test_places_of_answers_leave_padding_out():
    torch.manual_seed(0)
    config = BertConfig(**SIZES, **no_dropout())
    student = BertForQuestionAnswering(config)
    teacher = BertForQuestionAnswering(copy.deepcopy(config))
    inputs = {k: v for k, v in batch((9, 5, 3, 2)).items() if k != "labels"}
    inputs |= {"start_positions": torch.tensor([1, 2, 0, 1])}
    inputs |= {"end_positions": torch.tensor([3, 4, 2, 1])}
    with torch.no_grad():
        ours, theirs = student.eval()(**inputs), teacher(**inputs)
    # by hand: over the real tokens of each row, start and end alike; T = 2
    kept, rows = inputs["attention_mask"].bool(), []
    for a, b in (
        (ours.start_logits, theirs.start_logits),
        (ours.end_logits, theirs.end_logits),
    ):
        for row in range(4):
            q = (a[row][kept[row]] / 2).log_softmax(-1)
            p = (b[row][kept[row]] / 2).softmax(-1)
            rows.append(F.kl_div(q, p, reduction="sum"))
    for labels in (0.0, 0.5):
        distillation = Distillation(labels=labels, logits=1, temperature=2.0)
        with Distiller(student, teacher, distillation):
            outputs = student.train()(**inputs)
        expected = 4 * torch.stack(rows).mean() + labels * ours.loss
        torch.testing.assert_close(outputs.loss.detach(), expected)
        assert outputs.start_logits.shape == ours.start_logits.shape
    with Distiller(student, teacher, Distillation(labels=0, logits_loss="mse", logits=1)):
        squares = student.train()(**inputs).loss
    parts = zip(ours.to_tuple()[1:], theirs.to_tuple()[1:], strict=True)
    both = [(a - b)[kept].square() for a, b in parts]
    torch.testing.assert_close(squares.detach(), torch.stack(both).mean())


@pytest.mark.parametrize("kind", ["kl", "cross_entropy", "mse"])
def test_more_padding_does_not_change_the_loss_of_answers(kind):
    torch.manual_seed(0)
    config = BertConfig(**SIZES, **no_dropout())
    student = BertForQuestionAnswering(config).train()
    teacher = BertForQuestionAnswering(copy.deepcopy(config))
    inputs = {k: v for k, v in batch((9, 5, 3, 2)).items() if k != "labels"}
    padded = {name: F.pad(value, (0, 12)) for name, value in inputs.items()}
    with Distiller(student, teacher, Distillation(labels=0, logits=1, logits_loss=kind)):
        short, long = student(**inputs).loss, student(**padded).loss
    torch.testing.assert_close(short, long)


def test_several_classes_an_example_take_no_softmax():
    student = bert(0, problem_type="multi_label_classification")
    inputs = batch() | {"labels": torch.ones(4, 2)}
    with (
        Distiller(student, bert(1), Distillation(logits=1)),
        pytest.raises(ValueError, match="logits_loss=mse"),
    ):
        student.train()(**inputs)
    with Distiller(student, bert(1), Distillation(logits=1, logits_loss="mse")):
        student.train()(**inputs).loss.backward()


def test_without_labels_the_teacher_is_enough():
    student, teacher = bert(0), bert(1)
    inputs = {k: v for k, v in batch().items() if k != "labels"}
    student.train()
    with Distiller(student, teacher, Distillation(labels=0, logits=1)):
        student(**inputs).loss.backward()
    with (
        Distiller(student, teacher, Distillation(labels=0.5, logits=1)),
        pytest.raises(ValueError, match="labels=0"),
    ):
        student(**inputs)
