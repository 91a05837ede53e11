"""A plain PyTorch loop with everything people put in one, and the model on disk at every step."""

from __future__ import annotations

import random
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForSequenceClassification, BertConfig

import sentei
from helpers.training import fitted
from sentei.methods import known
from sentei.parts.masks import Project
from sentei.testing import make_sparse_

STEPS = 24


class Loop:
    """bf16 autocast, dropout, two micro-batches a step, clipping, a learning rate that moves."""

    def __init__(self, recipe, folder: Path | None = None):
        if folder:
            self.model = AutoModelForSequenceClassification.from_pretrained(folder)
        else:
            torch.manual_seed(0)
            self.model = AutoModelForSequenceClassification.from_config(
                BertConfig(
                    hidden_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=64,
                    vocab_size=100,
                    max_position_embeddings=16,
                )
            )
            make_sparse_(self.model, recipe)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-3)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.1, STEPS)
        self.pruner = sentei.Pruner(self.model, recipe, total_steps=STEPS, examples=192)
        if folder:
            self.pruner.load(folder / "pruner.safetensors")
            rest = torch.load(folder / "rest.pt")
            self.optimizer.load_state_dict(rest["optimizer"])
            self.scheduler.load_state_dict(rest["scheduler"])
        self.pruner.attach(self.optimizer)

    def step(self):
        torch.manual_seed(self.pruner.step)  # data and dropout of this step
        for _ in range(2):
            tokens, labels = torch.randint(0, 100, (4, 6)), torch.randint(0, 2, (4,))
            with torch.autocast("cpu", torch.bfloat16):
                loss = self.model(input_ids=tokens, labels=labels).loss / 2
            loss.backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        with warnings.catch_warnings():
            # So short a run is no measure of how near a learned sparsity comes to its target.
            warnings.simplefilter("ignore", sentei.SenteiWarning)
            self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path):
        self.model.save_pretrained(folder)
        self.pruner.save(folder / "pruner.safetensors")
        rest = {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}
        torch.save(rest, folder / "rest.pt")


@pytest.fixture(scope="module", params=known(), ids=lambda method: method.name)
def run(request, tmp_path_factory):
    """A whole run that left a checkpoint and its sparsity at every step."""
    folder, recipe = tmp_path_factory.mktemp(request.param.name), fitted(request.param)
    loop, told = Loop(recipe), {}
    for step in range(1, STEPS + 1):
        loop.step()
        loop.save(folder / str(step))
        told[step] = (loop.pruner.sparsity, sorted(loop.pruner.masks))
    return recipe, folder, told, loop


def test_the_model_on_disk_has_the_sparsity_that_was_told(run):
    recipe, folder, told, loop = run
    decided = {update.step: update for update in loop.pruner.updates}
    shrinks = recipe.method == "proximal"  # which makes zeros among what is kept, too
    seen = []
    for step, (sparsity, names) in told.items():
        model = AutoModelForSequenceClassification.from_pretrained(folder / str(step))
        weights = [model.get_parameter(name) for name in names]
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        assert zeros / sum(weight.numel() for weight in weights) == sparsity, step
        assert type(model).__name__ == "BertForSequenceClassification"
        seen.append(zeros)
        assert recipe.schedule.is_update(step, STEPS) == (step in decided)
        if step in decided:
            wanted = round(recipe.schedule.at(step, STEPS) * loop.pruner.prunable)
            assert decided[step].pruned == wanted or not decided[step].settled
            exact = zeros == decided[step].pruned
            assert exact or (shrinks and zeros > decided[step].pruned), step
    # Between decisions, weights regrow where the mask does not hold them.
    regrown = any(after < before for before, after in pairwise(seen))
    if all(update.settled for update in loop.pruner.updates) and not shrinks:
        assert regrown == (isinstance(recipe.mask, Project) and recipe.mask.hold is not True)
    assert seen[-1] == round(0.8 * loop.pruner.prunable)


@pytest.mark.parametrize("stop", sorted(random.Random(0).sample(range(1, STEPS), 4)))
def test_resume_in_a_fresh_model_is_bit_for_bit(run, stop):
    recipe, folder, _, whole = run
    loop = Loop(recipe, folder / str(stop))
    assert loop.pruner.step == stop
    for _ in range(STEPS - stop):
        loop.step()
    final = whole.model.state_dict()
    assert all(torch.equal(tensor, final[name]) for name, tensor in loop.model.state_dict().items())
    assert loop.pruner.updates == whole.pruner.updates
    assert loop.pruner.finish().pruned == round(0.8 * loop.pruner.prunable)


def test_resume_with_the_weights_of_another_step_is_refused(run, tmp_path):
    recipe, folder, _, _ = run
    Loop(recipe, folder / "5").save(tmp_path)
    (tmp_path / "pruner.safetensors").write_bytes((folder / "9/pruner.safetensors").read_bytes())
    with pytest.raises(ValueError, match="cannot resume at step 9"):
        Loop(recipe, tmp_path).step()
