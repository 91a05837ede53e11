"""Learned scores of whole rows and blocks, beside an autograd-gated network with such gates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sentei
from helpers.gated import STEPS, Gated, StraightThrough, close, cubic, ours, top


class Grouped(Gated):
    """Movement pruning with one score for a tile of (rows, columns); all sites are ranked alike."""

    def __init__(self, sparsity, rows, columns):
        super().__init__(score_lr=0.05)
        self.sparsity, self.tile = sparsity, (rows, columns)
        grid = (16 // rows, 1, 16 // columns, 1)
        self.scores = [nn.Parameter(torch.zeros(grid, dtype=torch.float64)) for _ in self.weights]
        for group, parameters in zip(
            self.optimizer.param_groups, (None, self.scores), strict=False
        ):
            group["params"] = parameters or group["params"]

    def gates(self):
        units = self.scores[0].numel()
        each, over = divmod(round(4 * units * cubic(self.t, self.sparsity, 0.1, 0.2)), 4)
        rows, columns = self.tile
        found = []
        for i, score in enumerate(self.scores):
            mask = top(score, each + (i < over))
            spread = (16 // rows, rows, 16 // columns, columns)
            gate = StraightThrough.apply(
                score.expand(spread), self.sigmas[0], mask.expand(spread).contiguous()
            )
            found.append(gate.reshape(16, 16))
        return found


@pytest.mark.parametrize(("pattern", "rows", "columns"), [("row", 1, 16), ("4x2", 4, 2)])
def test_grouped_movement_equals_an_autograd_gated_network(pattern, rows, columns):
    run = ours(sentei.movement(0.5, score_lr=0.05, push=0.0, warmup=0.1, pattern=pattern))
    reference = Grouped(0.5, rows, columns)
    revived, before = 0, dict.fromkeys(run.pruner.masks, torch.tensor(True))
    for _ in range(STEPS):
        run.step()
        reference.step()
        state = run.pruner.state_dict()
        with torch.no_grad():
            gates = reference.gates()
        for i, weight in enumerate(reference.weights):
            name = f"blocks.{i}.weight"
            close(state["memory"][name]["latent"], weight)
            close(run.model.blocks[i].weight, weight * gates[i])
            (units,) = (v for k, v in state["units"].items() if k.endswith(name))
            close(units["score"], reference.scores[i].flatten())
        masks = run.pruner.masks
        revived += sum(int((mask & ~before[name]).sum()) for name, mask in masks.items())
        before = {name: mask.clone() for name, mask in masks.items()}
    assert revived
    assert run.finish().pruned == 4 * 256 * 0.5
