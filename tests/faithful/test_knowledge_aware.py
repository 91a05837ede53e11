"""Knowledge-aware pruning's masks: stages, per matrix, nested, held (its loss: elsewhere)."""

from __future__ import annotations

import pytest
import torch

import sentei
from sentei.methods.knowledge_aware import Stages
from sentei.testing import Training


def test_sparsity_of_the_stages():
    schedule = Stages(sparsity=0.95, stages=100)
    found = [schedule.at(stage * 7, 700) for stage in (0, 1, 50, 99, 100)]
    assert found == pytest.approx([0, 0.02821595, 0.83125, 0.94999905, 0.95], rel=1e-9)
    assert schedule.at(13, 700) == schedule.at(7, 700) < schedule.at(14, 700)


def test_nested_masks_of_equal_sparsity_are_held_at_every_step():
    steps, stages = 60, 20
    run = Training(sentei.knowledge_aware(0.9, stages=stages), steps=steps)
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
    distill = sentei.knowledge_aware().distill
    assert (distill.labels, distill.logits, distill.hidden, distill.attention) == (0, 1, 1, 1)
    assert distill.logits_loss == "cross_entropy" and distill.temperature == 1
    assert distill.student == "pretrained"
