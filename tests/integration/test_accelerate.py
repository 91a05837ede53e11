"""An Accelerate loop: nothing to change in it, and the pruner in Accelerate's own checkpoints."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, BertConfig

import sentei

STEPS = 20
CONFIG = BertConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=100,
    max_position_embeddings=16,
)


pytestmark = pytest.mark.usefixtures("no_accelerator_is_left")


def batches() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 100, (2 * STEPS * 4, 6), generator=generator)
    rows = [{"input_ids": row, "labels": row[0] % 2} for row in tokens]
    # A generator of its own: the loader's start must not move the one that dropout draws from.
    return DataLoader(rows, batch_size=4, generator=torch.Generator())


class Loop:
    """The loop of Accelerate's documentation, with the pruner's two lines."""

    def __init__(self, recipe, seed=0):
        torch.manual_seed(seed)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = AutoModelForSequenceClassification.from_config(CONFIG).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)
        self.model, self.optimizer, self.data, self.scheduler = self.accelerator.prepare(
            model, optimizer, batches(), scheduler
        )
        self.pruner = sentei.Pruner(self.model, recipe, total_steps=STEPS)
        self.pruner.attach(self.optimizer)
        self.accelerator.register_for_checkpointing(self.pruner)

    def train(self, *, skip=0, save_at=(), folder=None):
        """``skip`` and ``save_at`` count batches, two a step."""
        batches = skip_first_batches(self.data, skip) if skip else self.data
        for number, batch in enumerate(batches, start=skip + 1):
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(self.model(**batch).loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()
            assert self.pruner.step == number // 2
            if number in save_at:
                self.accelerator.save_state(folder / str(number))
        return self


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_resume_is_bit_for_bit(iterate, tmp_path):
    recipe = sentei.platon(0.8, window=2, every=2, iterate=iterate)
    whole = Loop(recipe).train(save_at=(6, 22, 32), folder=tmp_path)
    final = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    for number in (6, 22, 32):
        loop = Loop(recipe, seed=number)
        loop.accelerator.load_state(tmp_path / str(number))
        assert loop.pruner.step == number // 2
        loop.train(skip=number)
        for name, p in loop.model.named_parameters():
            assert torch.equal(p, final[name]), (number, name)
        assert loop.pruner.updates == whole.pruner.updates
        assert loop.pruner.finish().pruned == round(0.8 * loop.pruner.prunable)


def test_a_step_is_an_optimizer_step():
    loop = Loop(sentei.magnitude(0.8, every=2)).train()
    assert loop.pruner.step == STEPS
    report = loop.pruner.finish()
    assert report.pruned == round(0.8 * report.prunable)
    assert {update.step for update in report.updates} <= set(range(1, STEPS + 1))


def test_the_unwrapped_model_is_plain_and_sparse(tmp_path):
    loop = Loop(sentei.platon(0.8, window=2, every=2)).train()
    names = list(loop.pruner.masks)
    report = loop.pruner.finish()
    loop.accelerator.unwrap_model(loop.model).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    zeros = sum(int((model.get_parameter(name) == 0).sum()) for name in names)
    assert zeros == report.pruned == round(0.8 * report.prunable)
