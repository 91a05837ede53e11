"""The loss of knowledge-aware pruning against one written from the authors' description.

SparseBERT (Xu et al., arXiv:2104.08682): sum over layers of MSE(attention scores before softmax,
entries <= -100 set to 0 in both) + sum over the embedding output and the layers of MSE(hidden
states) + soft cross-entropy, a mean over batch and classes at temperature 1; the squared error to
the labels for regression. Padding counts, labels do not, all weights are 1.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from sentei.distill import Distiller
from sentei.parts.distillation import Distillation

SPARSEBERT = Distillation(
    labels=0,
    logits=1,
    logits_loss="cross_entropy",
    temperature=1,
    regression="labels",
    hidden=1,
    attention=1,
    padding=True,
)


def bert(seed: int, labels: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        vocab_size=50,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=labels,
        initializer_range=0.3,
        problem_type="regression" if labels == 1 else None,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config).double()


class Reference:
    """Reads queries, keys and states off a BERT with hooks, and computes scores itself."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.model, self.states, self.projections = model, [], []
        model.bert.embeddings.register_forward_hook(lambda m, i, out: self.states.append(out))
        for layer in model.bert.encoder.layer:
            layer.register_forward_hook(lambda m, i, out: self.states.append(_first(out)))
            attention = layer.attention.self
            for linear in (attention.query, attention.key):
                linear.register_forward_hook(lambda m, i, out: self.projections.append(out))

    def __call__(self, batch):
        self.states.clear()
        self.projections.clear()
        logits = self.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        blocked = (1.0 - batch["attention_mask"].double())[:, None, None, :] * -10000.0
        scores = []
        for query, key in zip(self.projections[::2], self.projections[1::2], strict=True):
            heads = [x.unflatten(-1, (4, 8)).transpose(1, 2) for x in (query, key)]
            scores.append(heads[0] @ heads[1].transpose(2, 3) / math.sqrt(8) + blocked)
        return logits, scores, list(self.states)


def _first(out):
    return out[0] if isinstance(out, tuple) else out


def reference_loss(student: Reference, teacher: Reference, batch, regression: bool):
    mse = nn.MSELoss()
    logits, scores, states = student(batch)
    with torch.no_grad():
        goal, goal_scores, goal_states = teacher(batch)
    loss = torch.zeros((), dtype=torch.float64)
    for a, b in zip(scores, goal_scores, strict=True):
        a = torch.where(a <= -1e2, torch.zeros_like(a), a)
        b = torch.where(b <= -1e2, torch.zeros_like(b), b)
        loss = loss + mse(a, b)
    for a, b in zip(states, goal_states, strict=True):
        loss = loss + mse(a, b)
    if regression:
        return loss + mse(logits.view(-1), batch["labels"].view(-1))
    return loss - (goal.softmax(-1) * logits.log_softmax(-1)).mean()


@pytest.mark.parametrize("labels", [3, 1])
def test_sparseberts_loss_and_gradients(labels):
    student, teacher = bert(0, labels), bert(1, labels)
    generator = torch.Generator().manual_seed(2)
    mask = torch.tensor([[1] * n + [0] * (10 - n) for n in (10, 7, 3)])
    batch = {
        "input_ids": torch.randint(1, 50, (3, 10), generator=generator) * mask,
        "attention_mask": mask,
        "labels": torch.tensor([0.3, 1.5, -2.0]).double()
        if labels == 1
        else torch.tensor([0, 2, 1]),
    }
    copies = Reference(copy.deepcopy(student).train()), Reference(copy.deepcopy(teacher).eval())
    expected = reference_loss(*copies, batch, regression=labels == 1)
    expected.backward()
    with Distiller(student, teacher, SPARSEBERT):
        loss = student.train()(**batch).loss
        loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    theirs = dict(copies[0].model.named_parameters())
    for name, parameter in student.named_parameters():
        # A key's bias moves every score of a query alike: its gradient is what is left of rounding.
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    assert all(p.grad.abs().max() > 1e-6 for n, p in student.named_parameters() if "weight" in n)


def test_leaps_attention_is_that_of_the_models_outputs():
    """MLPruning compares ``outputs.attentions``: probabilities, the student's after dropout, all
    pairs of tokens, a mean over each layer and the sum over the layers.
    """
    leap = Distillation(
        labels=0, logits=0, attention=0.9, attention_of="probabilities", padding=True
    )
    student, teacher = bert(0), bert(1)
    student.config.attention_probs_dropout_prob = 0.1
    for layer in student.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.1
        layer.attention.self.attention_dropout = 0.1
    inputs = {
        "input_ids": torch.randint(0, 50, (4, 7)),
        "attention_mask": torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 5, 3, 2)]),
    }
    student.train()
    torch.manual_seed(2)
    ours = student(**inputs, output_attentions=True).attentions
    with torch.no_grad():
        theirs = teacher.eval()(**inputs, output_attentions=True).attentions
    expected = sum(nn.functional.mse_loss(s, t) for s, t in zip(ours, theirs, strict=True))
    with Distiller(student, teacher, leap) as distiller:
        torch.manual_seed(2)
        loss = student(**inputs).loss
        torch.testing.assert_close(distiller.terms["attention"], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(loss, 0.9 * expected, rtol=1e-12, atol=0)
    scores = leap.model_copy(update={"attention_of": "scores"})
    with Distiller(student, teacher, scores) as distiller:
        student(**inputs)
        assert distiller.terms["attention"] > 20 * expected
