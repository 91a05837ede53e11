"""Every method in the real Trainer, compiled, and with plain models on disk at every step."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import sentei
from helpers.training import STEPS, fitted, same, trainer, weights, zeros
from sentei.methods import known
from sentei.testing import Network


@pytest.fixture(autouse=True)
def so_short_a_run_is_no_measure_of_a_learned_sparsity():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sentei.SenteiWarning)
        yield


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_trainer(method, tmp_path):
    callback = sentei.PruningCallback(fitted(method))
    run = trainer(tmp_path / "whole", callback, save_steps=1, eval_strategy="steps", eval_steps=5)
    run.train()
    report = callback.report
    names = [site.name for site in report.sites]
    assert zeros(run.model, names) == report.pruned == round(0.8 * report.prunable)

    logged = {line["step"]: line["sparsity"] for line in run.state.log_history if "loss" in line}
    for step in (1, 7, 16, STEPS):
        model = AutoModelForSequenceClassification.from_pretrained(
            Path(run.args.output_dir, f"checkpoint-{step}")
        )
        assert zeros(model, names) / report.prunable == logged[step]

    for step in (3, 16):
        folder = tmp_path / f"from {step}"
        shutil.copytree(
            Path(run.args.output_dir, f"checkpoint-{step}"), folder / f"checkpoint-{step}"
        )
        again = sentei.PruningCallback(fitted(method))
        resumed = trainer(folder, again, eval_strategy="steps", eval_steps=5)
        resumed.train(resume_from_checkpoint=True)
        assert same(weights(resumed), weights(run)) and again.report == report


@pytest.mark.parametrize("name", ["movement", "l0", "leap", "platon", "mgpp"])
def test_compiled(name):
    """A compiled model trains to the same masks as the plain one."""
    masks = []
    for compiled in (False, True):
        torch.manual_seed(0)
        plain = Network(dtype=torch.float64)
        model = torch.compile(plain, backend="aot_eager") if compiled else plain
        optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
        recipe = fitted(next(m for m in known() if m.name == name))
        pruner = sentei.Pruner(model, recipe, total_steps=20, examples=160)
        pruner.attach(optimizer)
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            x = torch.randn(8, 8, generator=generator, dtype=torch.float64)
            (model(x) - x.square().mean(-1, keepdim=True)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        masks.append({mask: keep.clone() for mask, keep in pruner.masks.items()})
        pruner.finish()
    assert same(*masks)
