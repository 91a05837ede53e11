"""The distiller on small models of several families, in a plain loop."""

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
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

import sentei
from sentei.distill import Distiller
from sentei.distill.recorder import ScoreRecorder
from sentei.parts.distillation import Distillation

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 24,
}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 60,
    "max_position_embeddings": 24,
}
EVERYTHING = Distillation(labels=1, logits=1, hidden=1, attention=1)


def bert(seed=0, **changes):
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SIZES | changes))


def batch(lengths=(9, 9, 9, 9), width=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (len(lengths), width), generator=generator)
    mask = torch.tensor([[int(i < n) for i in range(width)] for n in lengths])
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": torch.arange(len(lengths)) % 2,
    }


def no_dropout(**changes):
    return {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | changes


DISTILBERT = DistilBertConfig(
    dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=60, max_position_embeddings=24
)
FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig(**SIZES)),
    "distilbert": (DistilBertForSequenceClassification, DISTILBERT),
    "mpnet": (MPNetForSequenceClassification, MPNetConfig(**SIZES)),
    "deberta": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    ),
    "vit": (ViTForImageClassification, ViTConfig(**SIZES, image_size=8, patch_size=4)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_hands_out_its_scores(family):
    """The scores recorded are those whose softmax the model itself returns as attentions."""
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    student, teacher = kind(copy.deepcopy(config)), kind(copy.deepcopy(config))
    inputs = batch((9, 6, 4, 2))
    if family == "vit":
        inputs = {"pixel_values": torch.randn(4, 3, 8, 8), "labels": inputs["labels"]}
    with Distiller(student, teacher, EVERYTHING) as distiller:
        student.train()(**inputs).loss.backward()
        assert set(distiller.terms) == {"labels", "logits", "hidden", "attention"}
        assert all(term > 0 for term in distiller.terms.values())
        with torch.no_grad(), ScoreRecorder() as recorder:
            attentions = student.eval()(**inputs, output_attentions=True).attentions
    assert len(recorder.scores) == len(attentions) == 2
    for scores, attention in zip(recorder.scores, attentions, strict=True):
        torch.testing.assert_close(scores.softmax(-1), attention)


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
    asked = Distillation(labels=0.25, logits=2, hidden=0.5, attention=0.125)
    student, teacher = bert(0, **no_dropout()), bert(1)
    with Distiller(student, teacher, asked) as distiller:
        loss = student.train()(**batch()).loss
    terms = distiller.terms
    expected = 0.25 * terms["labels"] + 2 * terms["logits"]
    expected = expected + 0.5 * terms["hidden"] + 0.125 * terms["attention"]
    torch.testing.assert_close(loss, expected)
    assert not any(term.requires_grad for term in terms.values())


def test_padding_says_nothing_unless_asked_to():
    """Each row alone and unpadded, against all in one padded batch."""
    student, teacher = bert(0, **no_dropout()).double(), bert(1).double()
    lengths = (9, 6, 4, 2)
    together = batch(lengths, width=9)
    hidden = Distillation(labels=0, logits=0, hidden=1)
    attention = Distillation(labels=0, logits=0, attention=1)
    student.train()
    for asked, size in ((hidden, lambda n: n), (attention, lambda n: n * n)):
        with Distiller(student, teacher, asked):
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
        counted = asked.model_copy(update={"padding": True})
        with Distiller(student, teacher, counted):
            assert abs(student(**together).loss - student(**wider).loss) > 1e-4


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
        found = student(**batch())
        assert list(found.keys()) == ["loss", "logits"] and found[0] is found.loss
        asked = student(**batch(), output_hidden_states=True)
        assert len(asked.hidden_states) == 3


def test_positional_arguments_are_understood():
    student, teacher = bert(0, **no_dropout()), bert(1)
    student.train()
    inputs = batch((9, 5, 3, 2))
    with Distiller(student, teacher, EVERYTHING):
        named = student(**inputs).loss
        ids = inputs.pop("input_ids")
        assert torch.equal(student(ids, **inputs).loss, named)


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


def test_a_failed_forward_leaves_no_recorder_behind():
    student, teacher = bert(0), bert(1)
    with Distiller(student, teacher, EVERYTHING):
        with pytest.raises(IndexError):
            student.train()(input_ids=torch.full((1, 4), 999))
        assert not torch.overrides._get_current_function_mode_stack()
        student(**batch()).loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_the_teacher_computes_in_the_students_precision(dtype):
    """Also where autocast is inside the student's forward, as Accelerate puts it."""
    student, teacher = bert(0, **no_dropout()), bert(1)
    found = []
    teacher.classifier.register_forward_hook(
        lambda module, given, output: found.append(output.dtype)
    )
    if dtype:
        student.forward = torch.autocast("cpu", dtype=dtype)(student.forward)
    with Distiller(student, teacher, Distillation(logits=1)):
        student.train()(**batch())
    assert found == [dtype or torch.float32]


def test_unequal_depth_learns_from_the_layers_named():
    student, teacher = bert(0, **no_dropout()), bert(1, num_hidden_layers=4)
    inputs = batch((9, 5, 3, 2))
    with torch.no_grad():
        states = teacher.eval()(**inputs, output_hidden_states=True).hidden_states
        ours = student.train()(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    for layers in (None, (1, 3)):
        asked = Distillation(labels=0, logits=0, hidden=1, layers=layers)
        chosen = [0, *(layers or (2, 4))]
        expected = sum(
            F.mse_loss(a[real], states[t][real]) for a, t in zip(ours, chosen, strict=True)
        )
        with Distiller(student, teacher, asked):
            torch.testing.assert_close(student(**inputs).loss, expected)


def test_a_teacher_of_another_family():
    """DistilBERT has no place for the token types that BERT's batch carries."""
    torch.manual_seed(1)
    teacher = DistilBertForSequenceClassification(copy.deepcopy(DISTILBERT))
    student = bert(0)
    inputs = batch() | {"token_type_ids": torch.zeros(4, 9, dtype=torch.long)}
    with Distiller(student, teacher, EVERYTHING) as distiller:
        student.train()(**inputs).loss.backward()
    assert all(term > 0 for term in distiller.terms.values())


def test_an_encoder_decoder_that_writes_is_refused():
    """Its teacher would be asked with the input for what it has written."""
    student, teacher = (BartForConditionalGeneration(BartConfig(**BART)) for _ in range(2))
    with pytest.raises(ValueError, match="words hang on those it has written so far"):
        Distiller(student, teacher, Distillation())
    student, teacher = (BartForSequenceClassification(BartConfig(**BART)) for _ in range(2))
    Distiller(student, teacher, Distillation())


def test_hidden_states_that_cannot_be_compared():
    """Refused, and left out with a word where a recipe can do without its teacher."""
    student, wider, inputs = bert(0, **no_dropout()), bert(1, hidden_size=48), batch()
    with pytest.raises(ValueError, match="hidden_size is 32 and the teacher's is 48"):
        Distiller(student, wider, Distillation(hidden=1))
    bart = BartForSequenceClassification(BartConfig(**BART, num_labels=2))
    for teacher, reason in ((wider, "hidden_size is 32"), (bart, "is an encoder-decoder")):
        asked = Distillation(hidden=1, required=False)
        distiller = Distiller(student, teacher, asked)
        assert distiller.distillation == asked.model_copy(update={"hidden": 0})
        (note,) = distiller.notes
        assert note.startswith("hidden states are left out: ") and reason in note
    with pytest.raises(ValueError, match="hidden_size is 32"):  # nothing else is asked of it
        Distiller(student, wider, Distillation(logits=0, hidden=1, required=False))
    with Distiller(student, wider, Distillation(hidden=1, required=False)) as distiller:
        student.train()(**inputs).loss.backward()
    assert distiller.terms.keys() == {"labels", "logits"}
    same = Distiller(student, bert(1), Distillation(hidden=1, required=False))
    assert same.distillation.hidden == 1 and not same.notes


def regressor(seed):
    return bert(seed, num_labels=1, problem_type="regression", **no_dropout())


@pytest.mark.parametrize("target", ["teacher", "labels"])
def test_regression_takes_the_squared_error(target):
    student, teacher = regressor(0), regressor(1)
    inputs = batch() | {"labels": torch.tensor([0.0, 0.5, 1.0, 2.0])}
    asked = Distillation(labels=0, logits=1, logits_loss="kl", regression=target)
    with Distiller(student, teacher, asked), torch.no_grad():
        found = student.train()(**inputs)
        theirs = teacher(**inputs).logits[:, 0] if target == "teacher" else inputs["labels"]
        torch.testing.assert_close(found.loss, F.mse_loss(found.logits[:, 0], theirs))


def test_regression_without_a_teacher_takes_none():
    with pytest.raises(ValueError, match="the student predicts a number"):
        Distiller(regressor(0), regressor(1), Distillation(regression="alone"))
    Distiller(bert(0), bert(1), Distillation(regression="alone"))


def test_classes_of_tokens_leave_padding_out():
    torch.manual_seed(0)
    config = BertConfig(**SIZES, **no_dropout())
    student = BertForTokenClassification(config)
    teacher = BertForTokenClassification(copy.deepcopy(config))
    inputs = batch((9, 5, 3, 2))
    labels = inputs["input_ids"] % 2
    inputs["labels"] = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    asked = Distillation(labels=0, logits=1, temperature=1.0)
    with Distiller(student, teacher, asked):
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
        asked = Distillation(labels=labels, logits=1, temperature=2.0)
        with Distiller(student, teacher, asked):
            found = student.train()(**inputs)
        expected = 4 * torch.stack(rows).mean() + labels * ours.loss
        torch.testing.assert_close(found.loss.detach(), expected)
        assert found.start_logits.shape == ours.start_logits.shape
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


def test_attaching_twice_is_refused():
    with (
        Distiller(bert(0), bert(1)) as distiller,
        pytest.raises(ValueError, match="attached already"),
    ):
        distiller.attach()


def test_a_pruner_whose_recipe_learns_from_a_teacher_misses_it():
    student, teacher = bert(), bert(seed=1)
    recipe = sentei.knowledge_aware(0.5, stages=2)
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
