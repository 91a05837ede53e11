"""First-order sensitivity against autograd numbers: its scores in closed form, and its masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sentei
from sentei.testing import STEPS, Training


@pytest.mark.parametrize("iterate", ["new", "old"])
@pytest.mark.parametrize("beta", [0.85, 0.0])
@pytest.mark.parametrize("window", [1, 4])
def test_scores_are_averages_of_autograd_numbers(iterate, beta, window):
    recipe = sentei.sensitivity(
        0.6, beta=beta, window=window, every=4, iterate=iterate, cooldown=0.4
    )
    run = Training(recipe, dtype=torch.float64)
    names = list(run.pruner.masks)
    weights = [run.model.get_parameter(name) for name in names]
    after_optimizer = []
    run.pruner.detach()  # to look at the weights between the optimizer's step and the pruner's
    run.optimizer.register_step_post_hook(
        lambda *_: after_optimizer.append([w.detach().clone() for w in weights])
    )
    run.pruner.attach(run.optimizer)
    signals = []
    for t in range(1, STEPS + 1):
        x, y = run.inputs[t - 1], run.targets[t - 1]
        gradients = torch.autograd.grad(nn.functional.mse_loss(run.model(x), y), weights)
        before = [w.detach().clone() for w in weights]
        run.step()
        met = after_optimizer[-1] if iterate == "new" else before
        signals.append(
            torch.cat([(w * g).abs().flatten() for w, g in zip(met, gradients, strict=True)])
        )
        if t < max(2, window):
            continue
        # Windows end before multiples of their length; the first lacks step 0 and counts it as 0.
        history = torch.stack([torch.zeros_like(signals[0]), *signals])
        ends = range(window, t + 1, window)
        means = [history[end - window : end].mean(0) for end in ends]
        scores = sum((1 - beta) * beta**k * mean for k, mean in enumerate(reversed(means)))
        memory = run.pruner.state_dict()["memory"]
        found = torch.cat([memory[name]["importance"].flatten() for name in names])
        torch.testing.assert_close(found, scores, rtol=1e-9, atol=1e-20)
        if beta == 0:
            last = (t // window) * window
            plain = torch.stack(signals)[max(0, last - window - 1) : last - 1].sum(0) / window
            torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-20)
        if run.pruner.updates and run.pruner.updates[-1].step == t:
            pruned = torch.cat([~run.pruner.masks[name].flatten() for name in names])
            assert 0 < int(pruned.sum()) < pruned.numel()
            assert found[pruned].max() <= found[~pruned].min()
    assert len(run.pruner.updates) > 15
