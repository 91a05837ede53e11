"""Training in the real Trainer that breaks off, begins again, or saves elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback

import sentei
from helpers.training import CONFIG, STEPS, same, trainer, weights, zeros
from sentei import manifest
from sentei.integrations.trainer import STATE_FILE

PLATON = sentei.platon(0.5, window=2, every=2)
RECIPES = {
    "platon": PLATON,
    "auto": sentei.auto(0.5).model_copy(
        update={"distill": None, "score": PLATON.score, "schedule": PLATON.schedule}
    ),
    "movement": sentei.movement(0.5),
    "l0": sentei.l0(0.5),
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
TOLD = pytest.mark.filterwarnings("ignore:.*learned sparsity:sentei.SenteiWarning")


class BreakOff(TrainerCallback):
    """Raises once, at a step."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.step = -1
            raise self.error


def dropouts(model):
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]


def exact(run, callback):
    report = callback.report
    names = [site.name for site in report.sites]
    assert zeros(run.model, names) == report.pruned == round(0.5 * report.prunable)
    assert report.step == report.total_steps == run.state.max_steps


@TOLD
@recipes
def test_a_smaller_batch_is_found_and_pruned_once(recipe, tmp_path):
    callback = sentei.PruningCallback(recipe)
    stop = BreakOff(9, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"))
    settings = {"auto_find_batch_size": True, "save_strategy": "no"}
    run = trainer(tmp_path, callback, stop, **settings)
    before = dropouts(run.model)
    run.train()
    assert run.state.max_steps > STEPS
    exact(run, callback)
    assert dropouts(run.model) == before and any(before)


@TOLD
@recipes
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), None], ids=str)
def test_a_second_train_is_pruned_once(recipe, error, tmp_path):
    callback = sentei.PruningCallback(recipe)
    run = trainer(tmp_path, callback, BreakOff(7 if error else -1, error), save_strategy="no")
    before = dropouts(run.model)
    if error is None:
        run.train()
    else:
        with pytest.raises(type(error)):
            run.train()
    run.train()
    exact(run, callback)
    assert dropouts(run.model) == before


@TOLD
@recipes
def test_a_training_that_broke_off_resumes_in_the_same_trainer(recipe, tmp_path):
    whole = trainer(tmp_path / "whole", sentei.PruningCallback(recipe), save_strategy="no")
    whole.train()
    callback = sentei.PruningCallback(recipe)
    run = trainer(tmp_path / "run", callback, BreakOff(7, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.train(resume_from_checkpoint=True)
    exact(run, callback)
    assert same(weights(run), weights(whole))


@pytest.mark.filterwarnings("ignore:another pruner:sentei.SenteiWarning")
def test_a_cell_with_a_trainer_that_is_run_twice(tmp_path):
    recipe = RECIPES["auto"]
    first = trainer(tmp_path, sentei.PruningCallback(recipe), BreakOff(7, RuntimeError("broken")))
    before = dropouts(first.model)
    with pytest.raises(RuntimeError):
        first.train()
    callback = sentei.PruningCallback(recipe)
    second = Trainer(
        first.model, first.args, train_dataset=first.train_dataset, callbacks=[callback]
    )
    second.train()
    exact(second, callback)
    assert dropouts(second.model) == before


@pytest.mark.filterwarnings("ignore:another pruner:sentei.SenteiWarning")
def test_two_callbacks_are_refused_before_the_first_step(tmp_path):
    run = trainer(tmp_path, sentei.PruningCallback(PLATON), sentei.PruningCallback(PLATON))
    before = {name: weight.clone() for name, weight in weights(run).items()}
    with pytest.raises(ValueError, match="give the Trainer one PruningCallback"):
        run.train()
    assert same(before, weights(run))


def test_a_search_has_the_state_beside_the_weights(tmp_path):
    callback = sentei.PruningCallback(PLATON)
    run = trainer(tmp_path, callback, eval_strategy="epoch", save_steps=12)
    run.model_init = lambda trial: AutoModelForSequenceClassification.from_config(CONFIG)
    run.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 5e-3)},
        n_trials=2,
        backend="optuna",
    )
    for number in range(2):
        for step in (12, 24):
            folder = tmp_path / f"run-{number}" / f"checkpoint-{step}"
            assert (folder / STATE_FILE).is_file() and not manifest.problems(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"run-0", "run-1"}
    resumed = trainer(tmp_path / "run-1", again := sentei.PruningCallback(PLATON))
    resumed.train(resume_from_checkpoint=str(tmp_path / "run-1" / "checkpoint-12"))
    exact(resumed, again)


class Elsewhere(Trainer):
    """Decides its own checkpoint folder."""

    def _get_output_dir(self, trial):
        return str(Path(self.args.output_dir, "deep", "down"))


def test_a_trainer_that_saves_elsewhere_has_the_state_beside_the_weights(tmp_path):
    run = trainer(tmp_path, sentei.PruningCallback(PLATON), save_steps=12)
    run.__class__ = Elsewhere
    run.train()
    for step in (12, 24):
        assert not manifest.problems(tmp_path / "deep" / "down" / f"checkpoint-{step}")
        assert (tmp_path / "deep" / "down" / f"checkpoint-{step}" / STATE_FILE).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    trainer(folder, sentei.PruningCallback(PLATON), save_steps=12).train()
    return folder / "checkpoint-12"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_step(path):
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"global_step": 5}))


HARMS = {
    "optimizer missing": lambda folder: (folder / "optimizer.pt").unlink(),
    "optimizer flipped": lambda folder: flip(folder / "optimizer.pt"),
    "weights flipped": lambda folder: flip(folder / "model.safetensors"),
    "random state missing": lambda folder: (folder / "rng_state.pth").unlink(),
    "state flipped": lambda folder: flip(folder / STATE_FILE),
    "manifest missing": lambda folder: (folder / manifest.MANIFEST).unlink(),
    "manifest cut": lambda folder: (folder / manifest.MANIFEST).write_text("{"),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_harmed_checkpoint_is_refused_with_the_cause(saved, harm, tmp_path):
    folder = tmp_path / saved.name
    shutil.copytree(saved, folder)
    harm(folder)
    run = trainer(tmp_path, sentei.PruningCallback(PLATON))
    with pytest.raises(ValueError, match="it is not the checkpoint that was written"):
        run.train(resume_from_checkpoint=True)


def test_a_state_of_a_later_step_is_refused(saved, tmp_path):
    folder = tmp_path / saved.name
    shutil.copytree(saved, folder)
    edit_step(folder / "trainer_state.json")
    (folder / manifest.MANIFEST).unlink()
    manifest.write(folder)
    run = trainer(tmp_path, sentei.PruningCallback(PLATON, resume_from=folder))
    with pytest.raises(ValueError, match="is of step 12, and the checkpoint of step 5"):
        run.train(resume_from_checkpoint=True)


class Silent(torch.optim.SGD):
    """Its step is another's."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=1e-2)
        self.step = torch.optim.SGD(parameters, lr=1e-2).step


def test_an_optimizer_whose_steps_cannot_be_seen_is_told_at_the_first(tmp_path):
    run = trainer(tmp_path, sentei.PruningCallback(PLATON))
    run.optimizer = Silent(list(run.model.parameters()))
    with pytest.raises(ValueError, match="the Trainer's step 1 was none of the optimizer"):
        run.train()
