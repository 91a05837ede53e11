"""What a latent method leaves in the model, and saves, is plain and sparse at every step."""

from __future__ import annotations

import pytest
import torch

import sentei
from helpers.gated import STEPS, close, ours

pytestmark = pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")  # of short trainings

RECIPES = {
    "movement": sentei.movement(0.7),
    "movement, sigmoid": sentei.movement(0.7).model_copy(
        update={"mask": sentei.movement().mask.model_copy(update={"surrogate": "sigmoid"})}
    ),
    "soft_movement": sentei.soft_movement(0.7, coefficient=1.0, score_lr=0.05),
    "l0": sentei.l0(0.7, score_lr=0.3, coefficient=10.0),
    "leap": sentei.leap(0.7),
    "leap of magnitudes": sentei.leap(0.7, score="magnitude"),
}


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def deterministic(run, name):
    """Latent x mask; for l0 latent x gate, zero where the mask is."""
    memory, keep = run.pruner.state_dict()["memory"][name], run.pruner.masks[name]
    if "noise" not in memory:
        return memory["latent"] * keep
    gate = (torch.sigmoid(memory["score"]) * 1.2 - 0.1).clamp(1e-6, 1)
    return memory["latent"] * gate * keep


@pytest.mark.parametrize("name", RECIPES)
def test_the_checkpoint_of_any_step_is_latent_times_mask(name):
    run = ours(RECIPES[name])
    keys = list(run.model.state_dict())
    for _ in range(STEPS):
        run.gradients()  # leaves l0's sample in the module
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.count += 1
        if run.count < STEPS:
            run.model(run.inputs[run.count])
        saved = copied(run.model)
        assert list(saved) == keys
        zeros = 0
        for site, keep in run.pruner.masks.items():
            close(saved[site], deterministic(run, site))
            assert torch.equal(saved[site] != 0, keep), (run.count, site)
            zeros += int((saved[site] == 0).sum())
        recorded = run.pruner.updates[-1].pruned if run.pruner.updates else 0
        assert zeros == recorded == run.pruner.pruned
    assert zeros == round(0.7 * 1024)


L0 = RECIPES["l0"]


@pytest.mark.parametrize("steps", [0, 30])
def test_l0_samples_in_training_and_only_there(steps):
    run = ours(L0).run(steps)
    x = run.inputs[0]
    saved = copied(run.model)
    plain = ours(None).model
    plain.load_state_dict(saved)
    expected = plain(x)
    sampled = run.model(x)
    assert not torch.allclose(sampled, expected)
    assert torch.equal(run.model(x), sampled), "one draw a step"
    assert same(copied(run.model), saved), "what is saved is deterministic"
    run.model.eval()
    assert torch.equal(run.model(x), expected)
    run.model.train()
    assert torch.equal(run.model(x), sampled)
    run.model.eval()
    run.model(x)
    assert same(copied(run.model), saved)


def test_evaluating_or_saving_between_micro_batches_changes_nothing():
    plain, interrupted = ours(L0), ours(L0)
    for _ in range(STEPS):
        plain.step()
        halves = zip(
            interrupted.inputs[interrupted.count].chunk(2),
            interrupted.targets[interrupted.count].chunk(2),
            strict=True,
        )
        for number, (x, y) in enumerate(halves):
            (torch.nn.functional.mse_loss(interrupted.model(x), y) / 2).backward()
            if number == 0:
                interrupted.model.eval()
                interrupted.model(x)
                interrupted.model.train()
            elif interrupted.count % 2:
                interrupted.model.state_dict()
                interrupted.pruner.state_dict()
        interrupted.optimizer.step()
        interrupted.optimizer.zero_grad()
        interrupted.count += 1
        assert same(plain.weights(), interrupted.weights()), plain.count
    assert plain.finish() == interrupted.finish()


def test_gates_are_deterministic_once_the_count_is_fixed():
    run = ours(L0).run(STEPS - 6)
    assert run.pruner.updates[-1].settled
    saved = copied(run.model)
    run.model(run.inputs[0])
    assert all(torch.equal(saved[name], p) for name, p in run.model.named_parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_finish_leaves_a_plain_model(name):
    run = ours(RECIPES[name]).run(STEPS)
    saved = copied(run.model)
    run.finish()
    assert same(saved, copied(run.model))
    x = run.inputs[0]
    before = run.model(x)
    assert torch.equal(run.model.eval()(x), before)
    assert not run.model._forward_pre_hooks and not run.model._state_dict_pre_hooks
    assert all(type(p) is torch.nn.Parameter for p in run.model.parameters())
