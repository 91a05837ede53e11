"""What the options of training do in a run: rates, clipping, decay, frozen embeddings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from sentei import serialization
from sentei.methods import find
from sentei.run.inspect import inspect
from sentei.run.optimizers import BertAdam
from sentei.run.options import settings_from
from sentei.run.prepare import prepare
from sentei.run.run import prune

pytestmark = pytest.mark.usefixtures("no_pages")

PEAK = 1e-3
DEFAULTS = {
    "learning_rate": PEAK,
    "precision": "fp32",
    "epochs": 4.0,
    "evaluations": 0,
    "checkpoints": 1,
}


@pytest.fixture
def prepared(tiny_model, data):
    """Prepare a run of 20 steps with these settings."""

    def made(*changes: str, method: str = "magnitude", **options: object):
        recipe = serialization.override(find(method).build(0.5), changes)
        files = {name: str(path) for name, path in data.items()}
        given = {"model": str(tiny_model), **files, **DEFAULTS, **options}
        return prepare(settings_from(given, serialization.to_dict(recipe)))

    return made


class Watch(TrainerCallback):
    """The gradients of every step, as the optimizer gets them, and the optimizer."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor | None]] = []
        self.optimizer: torch.optim.Optimizer | None = None

    def on_pre_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        self.optimizer = getattr(optimizer, "optimizer", optimizer)
        self.gradients.append(
            {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
        )


def logged(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["learning_rate"] for line in lines if "loss" in line}


CURVES = {
    "linear": lambda passed: 1 - passed,
    "cosine": lambda passed: (1 + math.cos(math.pi * passed)) / 2,
    "constant": lambda passed: 1,
}


@pytest.mark.parametrize(
    ("curve", "floor"), [("linear", 0.5), ("cosine", 0.5), ("cosine", 0.0), ("constant", 0.0)]
)
def test_dense_training_has_the_same_curve(curve, floor, prepared, tmp_path):
    """2 of 20 steps rise; what is logged at a step is the rate that it was made with."""
    run = prepared(dense_epochs=4.0, lr_schedule=curve, lr_floor=floor)
    prune(run, tmp_path / "run")
    for folder in ("run", "run/dense"):
        rates = logged(tmp_path / folder)
        assert rates[1] == 0
        for step in (10, 20):
            fraction = floor + (1 - floor) * CURVES[curve]((step - 1 - 2) / 18)
            assert rates[step] / PEAK == pytest.approx(fraction, rel=1e-9)


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_clipping(each, accumulate, prepared, tmp_path):
    bare, watch = Watch(), Watch()
    options = {"accumulate": accumulate, "batch_size": 32 // accumulate}
    prune(prepared(clip=0, **options), tmp_path / "bare", watch=[bare])
    prune(prepared(clip=1e-3, clip_each=each, **options), tmp_path / "run", watch=[watch])
    before, after = bare.gradients[0], watch.gradients[0]  # of the same weights
    norms = {name: gradient.norm().item() for name, gradient in before.items()}
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    assert max(norms.values()) > 1e-3 > min(norms.values())
    for name, gradient in before.items():
        norm = norms[name] if each else whole
        wanted = gradient * min(1, 1e-3 / (norm + 1e-6))
        torch.testing.assert_close(after[name], wanted, rtol=1e-4, atol=1e-9)


def test_decay_leaves_biases_and_layer_norms_alone(prepared, tmp_path):
    watch = Watch()
    run = prepared(
        optimizer="bert_adam", weight_decay=0.3, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-5
    )
    prune(run, tmp_path / "run", watch=[watch])
    assert type(watch.optimizer) is BertAdam
    decayed, spared = watch.optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert decayed["betas"] == (0.8, 0.9) and decayed["eps"] == 1e-5
    assert all(weight.ndim == 2 for weight in decayed["params"])
    assert all(weight.ndim == 1 for weight in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(watch.gradients[0])


def test_adams_numbers_reach_adamw(prepared, tmp_path):
    watch = Watch()
    prune(prepared(adam_beta2=0.98, adam_epsilon=1e-6), tmp_path / "run", watch=[watch])
    assert type(watch.optimizer) is torch.optim.AdamW
    for group in watch.optimizer.param_groups:
        assert group["betas"] == (0.9, 0.98) and group["eps"] == 1e-6


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_frozen_embeddings_are_bit_for_bit_what_they_were(dense, prepared, tiny_model, tmp_path):
    watch = Watch()
    run = prepared(freeze_embeddings=True, dense_epochs=dense, weight_decay=0.1)
    prune(run, tmp_path / "run", watch=[watch])
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(tmp_path / "run/model/model.safetensors")
    frozen = {f"bert.{name}": weight for name, weight in before.items() if "embeddings" in name}
    assert len(frozen) == 5  # three tables and a layer norm
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items())
    assert not any(
        torch.equal(after[f"bert.{name}"], weight)
        for name, weight in before.items()
        if name.endswith("dense.weight") and f"bert.{name}" not in frozen
    )
    for gradients in watch.gradients:
        assert {name for name, gradient in gradients.items() if gradient is None} == {*frozen}


def test_frozen_embeddings_need_no_gradients_and_no_averages(prepared):
    plain, frozen = (inspect(prepared(freeze_embeddings=f)).memory for f in (False, True))
    size = 4 * 16 * (17 + 64 + 2 + 2)  # words, positions, types, layer norm
    assert plain.weights == frozen.weights
    assert plain.gradients - frozen.gradients == size
    assert plain.optimizer - frozen.optimizer == 2 * size


def test_what_is_pruned_must_be_trained(prepared):
    with pytest.raises(ValueError, match=r"--freeze-embeddings: the recipe prunes bert.emb.*word"):
        prepared("scope.include=['*.weight']", "scope.exclude=[]", freeze_embeddings=True)


def test_means_in_bf16_are_what_inspect_tells(prepared, tmp_path):
    """The state that is saved has half the means, and a run of such goes on with it."""
    memory = {}
    for wish in ("fp32", "bf16"):
        run = prepared("score.window=2", method="sensitivity", state_dtype=wish)
        memory[wish] = inspect(run).memory.pruner
        prune(run, tmp_path / wish)
        [file] = (tmp_path / wish / "checkpoints").rglob("pruner.safetensors")
        kept = load_file(file)
        assert sum(t.nbytes for name, t in kept.items()) == memory[wish]
        means = {t.dtype for name, t in kept.items() if name.startswith("memory:")}
        assert means == {torch.bfloat16 if wish == "bf16" else torch.float32}
    weights = sum(site.parameter.numel() for site in run.selection.sites)
    assert (memory["fp32"], memory["bf16"]) == (9 * weights, 5 * weights)


def test_learned_scores_are_refused_by_the_options_name(prepared):
    with pytest.raises(ValueError, match=r"^--state-dtype bf16: movement cannot keep its state"):
        prepared(method="movement", state_dtype="bf16")
