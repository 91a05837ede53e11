"""Knowledge-aware pruning's masks: stages, per matrix, nested, held (its loss: elsewhere)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import BertConfig, BertForSequenceClassification

import sentei
from sentei.methods.knowledge_aware import Stages
from sentei.run.optimizers import BertAdam
from sentei.testing import Training

SMALL = BertConfig(
    vocab_size=100,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    attn_implementation="eager",
)


def test_sparsity_of_the_stages():
    schedule = Stages(sparsity=0.95, stages=100)
    found = [schedule.at(stage * 7, 700) for stage in (0, 1, 50, 99, 100)]
    assert found == pytest.approx([0, 0.02821595, 0.83125, 0.94999905, 0.95], rel=1e-9)
    assert schedule.at(13, 700) == schedule.at(7, 700) < schedule.at(14, 700)


def test_nested_masks_of_equal_sparsity_are_held_at_every_step():
    steps, stages = 60, 20
    run = Training(sentei.published("knowledge_aware", 0.9, stages=stages), steps=steps)
    names = [f"blocks.{i}.weight" for i in range(4)]
    pruned = {name: torch.zeros(16, 16, dtype=torch.bool) for name in names}
    met = {}
    run.pruner.detach()  # to look at the weights between the optimizer's step and the pruner's
    run.optimizer.register_step_post_hook(
        lambda *_: met.update({n: run.model.get_parameter(n).detach().abs() for n in names})
    )
    run.pruner.attach(run.optimizer)
    for t in range(1, steps + 1):
        run.step()
        if t % 3 == 0:
            c = t // 3
            sparsity = 0.9 * (1 - (1 - c / stages) ** 3)
            each, over = divmod(round(4 * 256 * sparsity), 4)
            for i, name in enumerate(names):
                size = met[name].masked_fill(pruned[name], 0.0).flatten()
                now = torch.zeros(256, dtype=torch.bool)
                now[torch.sort(size, stable=True).indices[: each + (i < over)]] = True
                now = now.view(16, 16)
                assert bool((now | ~pruned[name]).all()), "nested"
                pruned[name] = now
        for name in names:
            weight = run.model.get_parameter(name)
            assert torch.equal(weight == 0, pruned[name]), (t, name)
    assert [update.step for update in run.pruner.updates] == list(range(3, 61, 3))
    assert run.finish().pruned == round(4 * 256 * 0.9)


def test_the_student_learns_from_the_teacher_alone():
    distill = sentei.published("knowledge_aware").distill
    assert (distill.labels, distill.logits, distill.hidden, distill.attention) == (0, 1, 1, 1)
    assert distill.logits_loss == "cross_entropy" and distill.temperature == 1
    assert distill.student == "pretrained"


def test_what_the_authors_relu_before_the_classifier_does():
    """Much to the first gradients of the head, little to those of layers and to masks."""
    masks, gradients = prune(relu=False)
    theirs, before = prune(relu=True)
    equal = torch.stack([(a == b).double().mean() for a, b in zip(masks, theirs, strict=True)])
    assert len(equal) == 200 and equal[0] == 1
    assert 0.998 < equal.mean() < 0.9995
    for name, gradient in before.items():
        change = (gradients[name] - gradient).abs().max() / gradient.abs().max()
        head = name.startswith(("classifier", "bert.pooler"))
        assert change > 0.5 if head else change < 0.01, name


def prune(*, relu: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Masks after every step of a training as SparseBERT's, and its first gradients."""
    torch.manual_seed(0)
    teacher, student = (BertForSequenceClassification(SMALL).double() for _ in range(2))
    for model in (teacher, student):
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.data.normal_(0, 0.02)
        if relu:
            model.classifier.register_forward_pre_hook(lambda _, inputs: inputs[0].relu())
    recipe = sentei.published("knowledge_aware", 0.95)
    optimizer = BertAdam(student.parameters(), lr=3e-4, weight_decay=0.01)
    alone = recipe.model_copy(update={"distill": None})
    pruner = sentei.Pruner(student, alone, total_steps=200)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(1)
    masks, first = [], dict[str, Tensor]()
    with sentei.Distiller(student.train(), teacher, recipe.distill):
        for _ in range(200):
            ids = torch.randint(100, (8, 12), generator=generator)
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            student(**batch, labels=ids[:, 0] % 2).loss.backward()
            first = first or {name: p.grad.clone() for name, p in student.named_parameters()}
            for weight in student.parameters():
                clip_grad_norm_(weight, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            masks.append(torch.cat([mask.flatten() for mask in pruner.masks.values()]))
    return masks, first
