"""The real Trainer, not subclassed, with the callback and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    TrainerCallback,
)

import sentei
from helpers.training import STEPS, same, trainer, weights, zeros
from sentei.integrations.trainer import STATE_FILE

PLATON = sentei.platon(0.8, window=2, every=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without interruption."""
    callback = sentei.PruningCallback(PLATON)
    run = trainer(tmp_path_factory.mktemp("whole"), callback, save_steps=1)
    assert run.args.optim == "adamw_torch_fused"
    run.train()
    return run, callback


def test_the_final_count_is_exact(whole):
    run, callback = whole
    report = callback.report
    names = [site.name for site in report.sites]
    assert report.step == run.state.max_steps == STEPS
    assert zeros(run.model, names) == report.pruned == round(0.8 * report.prunable)


def test_every_checkpoint_has_the_sparsity_that_was_logged(whole):
    run, callback = whole
    logged = {line["step"]: line["sparsity"] for line in run.state.log_history}
    assert sorted(logged) == list(range(1, STEPS + 1))
    names = [site.name for site in callback.report.sites]
    checkpoints = sorted(Path(run.args.output_dir).glob("checkpoint-*"))
    assert len(checkpoints) == STEPS
    for checkpoint in checkpoints:
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
        step = int(checkpoint.name.rpartition("-")[2])
        assert zeros(model, names) / callback.report.prunable == logged[step]
    # Zeros regrow between decisions: a log that showed the target would not be this one.
    assert logged[4] > 0 == logged[5] and logged[STEPS] == callback.report.sparsity


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_resume_is_bit_for_bit(whole, step, tmp_path):
    run, callback = whole
    checkpoint = Path(run.args.output_dir, f"checkpoint-{step}")
    shutil.copytree(checkpoint, tmp_path / checkpoint.name)
    again = sentei.PruningCallback(PLATON)
    resumed = trainer(tmp_path, again)
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(resumed), weights(run))
    assert again.report == callback.report
    assert [line for line in resumed.state.log_history if "sparsity" not in line] == []


def test_means_in_bf16_resume_bit_for_bit_and_not_in_float32(tmp_path):
    half = {"state_dtype": torch.bfloat16}
    first = trainer(tmp_path / "whole", sentei.PruningCallback(PLATON, **half), save_steps=5)
    first.train()
    checkpoint = tmp_path / "whole" / "checkpoint-5"
    again = sentei.PruningCallback(PLATON, resume_from=checkpoint, **half)
    resumed = trainer(tmp_path / "again", again)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert same(weights(resumed), weights(first))
    other = trainer(tmp_path / "other", sentei.PruningCallback(PLATON, resume_from=checkpoint))
    with pytest.raises(ValueError, match="state is kept in bfloat16, and this pruner's in float32"):
        other.train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match="movement cannot keep its state in bf16"):
        sentei.PruningCallback(sentei.movement(0.8), **half)


@pytest.mark.parametrize("named", ["in the callback", "in the arguments"])
def test_resume_from_another_folder(whole, named, tmp_path):
    run, callback = whole
    elsewhere = tmp_path / "moved"
    shutil.copytree(Path(run.args.output_dir, "checkpoint-10"), elsewhere)
    settings = {"resume_from_checkpoint": str(elsewhere)}
    if named == "in the callback":
        again, settings = sentei.PruningCallback(PLATON, resume_from=elsewhere), {}
    else:
        again = sentei.PruningCallback(PLATON)
    resumed = trainer(tmp_path / "run", again, **settings)
    resumed.train(resume_from_checkpoint=str(elsewhere))
    assert same(weights(resumed), weights(run)) and again.report == callback.report


def test_resume_from_another_folder_must_be_named(whole, tmp_path):
    run, _ = whole
    elsewhere = tmp_path / "moved"
    shutil.copytree(Path(run.args.output_dir, "checkpoint-10"), elsewhere)
    resumed = trainer(tmp_path / "run", sentei.PruningCallback(PLATON))
    with pytest.raises(ValueError, match=r"PruningCallback\(recipe, resume_from=\.\.\.\)"):
        resumed.train(resume_from_checkpoint=str(elsewhere))


def test_resume_without_a_state(whole, tmp_path):
    run, _ = whole
    checkpoint = tmp_path / "checkpoint-10"
    shutil.copytree(Path(run.args.output_dir, "checkpoint-10"), checkpoint)
    (checkpoint / STATE_FILE).unlink()
    resumed = trainer(tmp_path, sentei.PruningCallback(PLATON))
    with pytest.raises(ValueError, match=f"resumes at step 10, but .* holds no {STATE_FILE}"):
        resumed.train(resume_from_checkpoint=True)


def test_resume_with_another_recipe(whole, tmp_path):
    run, _ = whole
    shutil.copytree(Path(run.args.output_dir, "checkpoint-10"), tmp_path / "checkpoint-10")
    resumed = trainer(tmp_path, sentei.PruningCallback(sentei.platon(0.9, window=2, every=2)))
    with pytest.raises(ValueError, match=r"recipe\.schedule\.sparsity was 0\.8, is 0\.9"):
        resumed.train(resume_from_checkpoint=True)


def test_load_best_model_at_end_is_refused(tmp_path):
    settings = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 5}
    run = trainer(tmp_path, sentei.PruningCallback(PLATON), **settings)
    with pytest.raises(ValueError, match="load_best_model_at_end=True"):
        run.train()


def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path):
    run = trainer(tmp_path, sentei.PruningCallback(sentei.platon(0.8, every=20)))
    before = {name: weight.clone() for name, weight in weights(run).items()}
    with pytest.raises(ValueError, match=r"schedule\.every=20"):
        run.train()
    assert same(before, weights(run))


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_stopping_early_warns_and_does_not_finish(tmp_path):
    callback = sentei.PruningCallback(PLATON)
    run = trainer(tmp_path, callback, StopAt(10))
    with pytest.warns(sentei.SenteiWarning, match="stopped at step 10 of 24"):
        run.train()
    pruner = callback.pruner
    assert callback.report is None and 0 < pruner.sparsity < 0.8
    with pytest.warns(sentei.SenteiWarning, match="straight to the final sparsity"):
        report = pruner.finish()
    assert report.pruned == round(0.8 * report.prunable)


class SaveAt(TrainerCallback):
    """Asks for a checkpoint after the pruning callback has been asked."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step in (7, 13)


def test_checkpoints_that_others_ask_for_resume_too(whole, tmp_path):
    run = trainer(tmp_path, sentei.PruningCallback(PLATON), SaveAt(), save_strategy="no")
    run.train()
    assert (tmp_path / "checkpoint-7" / STATE_FILE).is_file()
    shutil.rmtree(tmp_path / "checkpoint-13")
    resumed = trainer(tmp_path, sentei.PruningCallback(PLATON))
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(resumed), weights(whole[0]))


def test_checkpoints_by_epoch_and_no_more_than_one(tmp_path):
    settings = {"save_strategy": "epoch", "save_total_limit": 1, "eval_strategy": "epoch"}
    callback = sentei.PruningCallback(PLATON)
    run = trainer(tmp_path, callback, **settings)
    run.train()
    assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{STEPS}"]
    assert (tmp_path / f"checkpoint-{STEPS}" / STATE_FILE).is_file()
    evaluations = [line for line in run.state.log_history if "eval_loss" in line]
    assert len(evaluations) == 2 and all("sparsity" in line for line in evaluations)


@pytest.mark.parametrize(
    "recipe",
    [sentei.magnitude(0.6, every=2), sentei.platon(0.6, window=2, every=2, iterate="old")],
    ids=["magnitude", "platon old"],
)
def test_other_recipes(recipe, tmp_path):
    callback = sentei.PruningCallback(recipe)
    trainer(tmp_path, callback, save_strategy="no", max_grad_norm=0.5).train()
    assert callback.report.pruned == round(0.6 * callback.report.prunable)
