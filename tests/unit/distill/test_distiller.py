"""The distiller at the student's hooks, in a plain loop."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertForSequenceClassification,
)

import sentei
from helpers.distilling import BART, EVERYTHING, batch, bert, no_dropout
from sentei.distill import Distiller
from sentei.parts.distillation import Distillation


def test_a_teacher_that_is_the_student_adds_nothing():
    student = bert(**no_dropout())
    teacher = copy.deepcopy(student)
    inputs = batch((9, 6, 4, 2))
    plain = student.train()(**inputs).loss
    with Distiller(student, teacher, EVERYTHING) as distiller:
        whole = student(**inputs).loss
    assert whole.item() == pytest.approx(plain.item(), abs=1e-6)
    assert distiller.terms["hidden"] < 1e-10 and distiller.terms["attention"] < 1e-10


def test_the_weighted_terms_are_the_loss():
    distillation = Distillation(labels=0.25, logits=2, hidden=0.5, attention=0.125)
    student, teacher = bert(0, **no_dropout()), bert(1)
    with Distiller(student, teacher, distillation) as distiller:
        loss = student.train()(**batch()).loss
    terms = distiller.terms
    expected = 0.25 * terms["labels"] + 2 * terms["logits"]
    expected = expected + 0.5 * terms["hidden"] + 0.125 * terms["attention"]
    torch.testing.assert_close(loss, expected)
    assert not any(term.requires_grad for term in terms.values())


def test_the_last_distiller_that_is_attached_teaches_alone():
    """A cell that is run twice: terms must not add up."""
    student, teacher, inputs = bert(0, **no_dropout()), bert(1), batch()
    with Distiller(student, teacher, EVERYTHING):
        expected = student.train()(**inputs).loss
    first = Distiller(student, teacher, EVERYTHING).attach()
    second = Distiller(student, teacher, EVERYTHING)
    with pytest.warns(sentei.SenteiWarning, match="another distiller was attached"):
        second.attach()
    assert torch.equal(student(**inputs).loss, expected)
    first.detach()
    assert torch.equal(student(**inputs).loss, expected)
    second.detach()
    assert not student._forward_hooks


def test_evaluation_is_untouched():
    student, teacher = bert(0), bert(1)
    inputs = batch()
    before = student.eval()(**inputs)
    with Distiller(student, teacher, EVERYTHING) as distiller:
        during = student.eval()(**inputs)
        assert distiller.terms == {}
    assert before.keys() == during.keys()
    torch.testing.assert_close(during.loss, before.loss)
    assert torch.equal(student(**inputs).loss, before.loss)


def test_outputs_are_as_asked_but_for_the_loss():
    student, teacher = bert(0, **no_dropout()), bert(1)
    student.train()
    with Distiller(student, teacher, Distillation(hidden=1)):
        outputs = student(**batch())
        assert list(outputs.keys()) == ["loss", "logits"] and outputs[0] is outputs.loss
        outputs = student(**batch(), output_hidden_states=True)
        assert len(outputs.hidden_states) == 3


def test_positional_arguments_are_understood():
    student, teacher = bert(0, **no_dropout()), bert(1)
    student.train()
    inputs = batch((9, 5, 3, 2))
    with Distiller(student, teacher, EVERYTHING):
        named = student(**inputs).loss
        ids = inputs.pop("input_ids")
        assert torch.equal(student(ids, **inputs).loss, named)


def test_a_compiled_student_learns_the_same():
    """The hooks are on the model itself, whichever of the two the distiller is given."""
    inputs, terms = batch((9, 5, 3, 2)), Distillation(logits=1, hidden=1)
    plain = bert(0, **no_dropout())
    with Distiller(plain, bert(1), terms):
        expected = plain.train()(**inputs).loss
    for wrapped in (False, True):
        student = bert(0, **no_dropout())
        compiled = torch.compile(student, backend="eager")
        with Distiller(compiled if wrapped else student, bert(1), terms) as distiller:
            assert distiller.student is student
            torch.testing.assert_close(compiled.train()(**inputs).loss, expected)


def test_detach_restores_everything():
    student, teacher = bert(0), bert(1)
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    hooks = [dict(module._forward_hooks) for module in student.modules()]
    assert student.config._attn_implementation == "sdpa"
    distiller = Distiller(student, teacher, EVERYTHING)
    assert any("sdpa to eager" in note for note in distiller.notes)
    distiller.attach()
    assert student.config._attn_implementation == teacher.config._attn_implementation == "eager"
    assert student.state_dict().keys() == state.keys()
    assert len(list(student.parameters())) == len(list(bert(0).parameters()))
    distiller.detach()
    assert student.config._attn_implementation == teacher.config._attn_implementation == "sdpa"
    assert [dict(module._forward_hooks) for module in student.modules()] == hooks
    assert not any(module._forward_pre_hooks for module in student.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in student.state_dict().items())
    inputs = batch()
    with distiller, torch.no_grad():  # and it can be attached again
        torch.manual_seed(0)
        assert student.train()(**inputs).loss > 2
    torch.manual_seed(0)
    plain = student(**inputs)
    torch.testing.assert_close(plain.loss, F.cross_entropy(plain.logits, inputs["labels"]))


def test_a_failed_forward_leaves_no_recorder_behind():
    student, teacher = bert(0), bert(1)
    with Distiller(student, teacher, EVERYTHING):
        with pytest.raises(IndexError):
            student.train()(input_ids=torch.full((1, 4), 999))
        assert not torch.overrides._get_current_function_mode_stack()
        student(**batch()).loss.backward()


def test_unequal_depth_learns_from_the_layers_named():
    student, teacher = bert(0, **no_dropout()), bert(1, num_hidden_layers=4)
    inputs = batch((9, 5, 3, 2))
    with torch.no_grad():
        states = teacher.eval()(**inputs, output_hidden_states=True).hidden_states
        ours = student.train()(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    for layers in (None, (1, 3)):
        distillation = Distillation(labels=0, logits=0, hidden=1, layers=layers)
        chosen = [0, *(layers or (2, 4))]
        expected = sum(
            F.mse_loss(a[real], states[t][real]) for a, t in zip(ours, chosen, strict=True)
        )
        with Distiller(student, teacher, distillation):
            torch.testing.assert_close(student(**inputs).loss, expected)


def test_an_encoder_decoder_that_writes_is_refused():
    """Its teacher would be asked with the input for what it has written."""
    student, teacher = (BartForConditionalGeneration(BartConfig(**BART)) for _ in range(2))
    with pytest.raises(ValueError, match="words hang on those it has written so far"):
        Distiller(student, teacher, Distillation())
    student, teacher = (BartForSequenceClassification(BartConfig(**BART)) for _ in range(2))
    Distiller(student, teacher, Distillation())


def test_the_function_form_agrees_with_the_hooks():
    student, teacher = bert(0, **no_dropout()), bert(1)
    distiller = Distiller(student, teacher, Distillation(logits=1, hidden=1))
    inputs = batch((9, 5, 3, 2))
    student.train()
    by_hand = distiller.loss(inputs, student(**inputs, output_hidden_states=True))
    with distiller:
        assert torch.equal(student(**inputs).loss, by_hand)
    watching = Distiller(student, teacher, EVERYTHING)
    with pytest.raises(ValueError, match="use attach"):
        watching.loss(inputs, student(**inputs, output_hidden_states=True))


# ------------------------------------------------------------------------------------- errors


def test_the_student_itself_is_no_teacher():
    student = bert(0)
    with pytest.raises(ValueError, match=r"copy\.deepcopy"):
        Distiller(student, student)
    other = bert(1)
    other.bert.embeddings = student.bert.embeddings
    with pytest.raises(ValueError, match="shares weights"):
        Distiller(student, other)


def test_gradient_checkpointing_hides_attention_scores():
    student, teacher = bert(0), bert(1)
    student.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient checkpointing"):
        Distiller(student, teacher, EVERYTHING).attach()
    with Distiller(student, teacher, Distillation(hidden=1)):
        student.train()(**batch()).loss.backward()
    student.gradient_checkpointing_disable()
    with Distiller(student, teacher, EVERYTHING):
        student.gradient_checkpointing_enable()  # as a Trainer does, later
        with pytest.raises(ValueError, match="gradient checkpointing"):
            student(**batch())


def test_gradient_checkpointing_changes_no_gradient_of_the_rest():
    gradients = []
    for checkpointing in (False, True):
        student, teacher = bert(0, **no_dropout()), bert(1)
        if checkpointing:
            student.gradient_checkpointing_enable()
        with Distiller(student, teacher, Distillation(logits=1, hidden=1)):
            student.train()(**batch()).loss.backward()
        gradients.append([p.grad for p in student.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_tuples_are_refused():
    student, teacher = bert(0), bert(1)
    with (
        Distiller(student, teacher, Distillation()),
        pytest.raises(ValueError, match="return_dict=False"),
    ):
        student.train()(**batch(), return_dict=False)


def test_fused_attention_that_cannot_be_changed_is_told(monkeypatch):
    student, teacher = bert(0), bert(1)
    monkeypatch.setattr(BertForSequenceClassification, "set_attn_implementation", lambda *a: None)
    with pytest.raises(ValueError, match="attn_implementation='eager': the student uses sdpa"):
        Distiller(student, teacher, EVERYTHING).attach()
    assert not student._forward_hooks


def test_attaching_twice_is_refused():
    with (
        Distiller(bert(0), bert(1)) as distiller,
        pytest.raises(ValueError, match="attached already"),
    ):
        distiller.attach()


def test_a_pruner_whose_recipe_learns_from_a_teacher_misses_it():
    student, teacher = bert(), bert(seed=1)
    recipe = sentei.published("knowledge_aware", 0.5, stages=2)
    distiller = sentei.Distiller(student, teacher, recipe.distill)
    for taught in (False, True):
        optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
        pruner = sentei.Pruner(student, recipe, total_steps=2)
        pruner.attach(optimizer)
        if taught:
            distiller.attach()
        student.train()(**batch()).loss.backward()
        with nullcontext() if taught else pytest.warns(sentei.SenteiWarning, match="Distiller"):
            optimizer.step()
        pruner.detach()


FADING = Distillation(labels=0.25, logits=0.75, hidden=0.5, attention=0.125, fade=(0.2, 0.6))


@pytest.mark.parametrize(("progress", "left"), [(0.0, 1.0), (0.2, 1.0), (0.3, 0.75), (0.5, 0.25)])
def test_a_teacher_fades_in_a_line_and_labels_gain_what_logits_lose(progress, left):
    student, teacher = bert(0, **no_dropout()), bert(1)
    with Distiller(student, teacher, FADING, progress=lambda: progress) as distiller:
        loss = student.train()(**batch()).loss
    terms = distiller.terms
    expected = (1 - 0.75 * left) * terms["labels"] + 0.75 * left * terms["logits"]
    expected = expected + 0.5 * left * terms["hidden"] + 0.125 * left * terms["attention"]
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("progress", [0.6, 1.0])
def test_a_teacher_that_has_faded_is_not_asked(progress):
    student, teacher, inputs = bert(0, **no_dropout()), bert(1), batch()
    plain = student.train()(**inputs)
    asked = []
    teacher.register_forward_pre_hook(lambda *_: asked.append(True))
    with Distiller(student, teacher, FADING, progress=lambda: progress) as distiller:
        outputs = student(**inputs)
    assert torch.equal(outputs.loss, plain.loss) and outputs.keys() == plain.keys()
    assert not asked and distiller.terms.keys() == {"labels"}


def test_a_pruner_says_how_far_training_is_from_its_first_step_and_after_going_on():
    student, teacher, inputs = bert(0, **no_dropout()), bert(1), batch()
    fading = Distillation(fade=(0, 1))
    recipe = sentei.magnitude(0.5, every=1)
    pruner = sentei.Pruner(student.train(), recipe, total_steps=4)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    with Distiller(student, teacher, fading) as distiller:
        with pytest.raises(ValueError, match="nobody says how far it is"):
            student(**inputs)
        pruner.attach(optimizer)
        for left in (1, 0.75, 0.5, 0.25):
            loss = student(**inputs).loss
            terms = distiller.terms
            expected = (1 - left / 2) * terms["labels"] + left / 2 * terms["logits"]
            torch.testing.assert_close(loss, expected)
            saved = pruner.state_dict()
            loss.backward()
            optimizer.step()
        assert student(**inputs).loss == distiller.terms["labels"]
        pruner.detach()
        again = sentei.Pruner(student, recipe, total_steps=4)
        again.load_state_dict(saved)
        again.attach(optimizer)
        loss = student(**inputs).loss
        terms = distiller.terms
        torch.testing.assert_close(loss, 0.875 * terms["labels"] + 0.125 * terms["logits"])


def test_a_pruner_that_is_gone_says_nothing():
    student, teacher = bert(0, **no_dropout()), bert(1)
    pruner = sentei.Pruner(student, sentei.magnitude(0.5, every=1), total_steps=4)
    pruner.attach(torch.optim.SGD(student.parameters(), lr=0.1))
    pruner.detach()
    with (
        Distiller(student, teacher, Distillation(fade=(0, 1))),
        pytest.raises(ValueError, match="fade=None"),
    ):
        student.train()(**batch())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fade": (0.6, 0.2)}, "0 <= begin < end <= 1"),
        ({"fade": (0, 2)}, "0 <= begin < end <= 1"),
        ({"fade": (0, 1), "labels": 0}, "once the teacher has faded"),
    ],
)
def test_fades_that_cannot_be(changes, said):
    with pytest.raises(ValueError, match=said):
        Distillation(**changes)
