"""Running means kept in bf16: what parts see of them, what is kept, and what is refused."""

from __future__ import annotations

import copy
from functools import partial
from typing import Literal

import pytest
import torch

import sentei
from helpers.pruning import LATENT, MAGNITUDE, MOVEMENT, PLATON, same, snapshot
from sentei import serialization
from sentei.pruning import buffers, checkpoint
from sentei.pruning.widened import Widened, round_, widened
from sentei.recipe import LEAST_SHARE
from sentei.testing import STEPS, Network, Training

BF16 = torch.bfloat16
SENSITIVITY = sentei.sensitivity(0.7, window=2, every=2)
RECIPES = {
    "platon": PLATON,
    "sensitivity": SENSITIVITY,
    "auto": sentei.auto(0.7, window=2).model_copy(update={"distill": None}),
    "old": sentei.platon(0.7, window=2, every=2, iterate="old"),
    "latent": LATENT["platon"],
    "rows": serialization.override(PLATON, ["pattern=row"]),
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


def test_what_is_kept_in_bf16_is_seen_in_float32_and_rounded():
    kept = {
        "mean": torch.ones(3, dtype=BF16),
        "draw": torch.zeros(3),
        "other": torch.ones(3).bool(),
    }
    memory = widened(kept, torch.float32)
    assert isinstance(memory, Widened) and list(memory) == list(kept) and len(memory) == 3
    assert memory["draw"] is kept["draw"] and memory["other"] is kept["other"]
    assert memory["mean"].dtype == torch.float32 and memory["mean"] is memory["mean"]
    memory["mean"].copy_(torch.tensor([1 + 2**-8, 1 + 2**-7 + 2**-9, 1e-30]))
    assert kept["mean"].tolist() == [1.0, 1.0, 1.0]
    round_(memory)
    assert kept["mean"].tolist() == [1.0, 1 + 2**-7, float(torch.tensor(1e-30).bfloat16())]


def test_where_all_is_in_full_precision_nothing_is_copied():
    kept = {"mean": torch.ones(3)}
    assert widened(kept, torch.float32) is kept
    round_(kept)
    assert kept["mean"].tolist() == [1.0, 1.0, 1.0]


def test_bf16_weights_keep_float32_means_unless_asked():
    for state_dtype in (torch.float32, BF16):
        pruner = Training(PLATON, dtype=BF16, state_dtype=state_dtype).pruner
        kept = {
            tensor.dtype for of in snapshot(pruner)["memory"].values() for tensor in of.values()
        }
        assert kept == {state_dtype}


class Asked(sentei.parts.Smoothed):
    """Somebody else's score, which looks at what it is given."""

    kind: Literal["asked"] = "asked"

    def observe_(self, memory, weight, gradient, step, scratch):
        assert {tensor.dtype for tensor in memory.values()} == {torch.float64}
        super().observe_(memory, weight, gradient, step, scratch)

    def value(self, memory, weight, out):
        assert memory["importance"].dtype == torch.float64
        return super().value(memory, weight, out)


def test_scores_see_the_precision_of_scores():
    recipe = SENSITIVITY.model_copy(update={"score": Asked(window=2)})
    Training(recipe, dtype=torch.float64, state_dtype=BF16).run(10)


@recipes
def test_the_count_is_exact_and_masks_are_nearly_those_of_float32(recipe):
    runs = [Training(recipe, state_dtype=dtype) for dtype in (torch.float32, BF16)]
    for _ in range(STEPS // 2):  # later each goes its own way
        for run in runs:
            run.step()
    full, half = (torch.cat([m.flatten() for m in r.pruner.masks.values()]) for r in runs)
    assert (full == half).double().mean() > 0.9
    runs[1].run(STEPS - STEPS // 2)
    kept = runs[1].pruner.state_dict()["memory"]
    names = set(recipe.score.memory)
    assert all(of[name].dtype == BF16 for of in kept.values() for name in names)
    pruned = runs[1].finish().pruned
    assert pruned == (round(0.7 * 64) * 16 if recipe is RECIPES["rows"] else round(0.7 * 1024))


@recipes
def test_a_file_resumes_bit_for_bit(recipe, tmp_path):
    begin = partial(Training, recipe, state_dtype=BF16)
    whole, first = begin().run(), begin().run(23)
    first.pruner.save(tmp_path / "p")
    assert same(checkpoint.read(tmp_path / "p"), snapshot(first.pruner))
    second = begin()
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.pruner.load(tmp_path / "p")
    second.count = 23
    assert same(second.run(STEPS - 23).weights(), whole.weights())
    assert second.finish() == whole.finish()


@recipes
def test_in_buffers_masks_are_the_same(recipe, monkeypatch):
    alone = Training(recipe, state_dtype=BF16).run()
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    monkeypatch.setattr(buffers, "LIMIT", 600)
    together = Training(recipe, state_dtype=BF16).run()
    assert together.pruner._state.buffers
    assert same(snapshot(alone.pruner), snapshot(together.pruner))
    assert same(alone.weights(), together.weights())


@pytest.mark.parametrize(("one", "other"), [(torch.float32, BF16), (BF16, torch.float32)], ids=str)
def test_a_state_in_another_precision_is_refused(one, other, tmp_path):
    first, second = (Training(PLATON, state_dtype=dtype).run(4) for dtype in (one, other))
    first.pruner.save(tmp_path / "p")
    before, name = snapshot(second.pruner), str(one).removeprefix("torch.")
    with pytest.raises(ValueError) as caught:
        second.pruner.load(tmp_path / "p")
    assert f"its state is kept in {name}, and this pruner's in" in str(caught.value)
    assert f"state_dtype=torch.{name}, as before" in str(caught.value)
    assert same(snapshot(second.pruner), before)


def test_a_state_that_does_not_say_is_in_float32():
    first = Training(PLATON).run(4)
    state = snapshot(first.pruner)
    del state["state_dtype"]
    second = Training(PLATON)
    second.pruner.load_state_dict(state)
    assert second.pruner.step == 4


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (MOVEMENT, "movement cannot keep its state in bf16: score learned is trained by steps"),
        (LATENT["l0"], "l0 cannot keep its state in bf16: score learned"),
        (LATENT["leap"], "leap cannot keep its state in bf16: score learned"),
        (sentei.random(0.7), "score random remembers draw, which is no running mean"),
    ],
    ids=lambda value: getattr(value, "method", ""),
)
def test_what_bf16_would_break_is_refused_by_name(recipe, message):
    with pytest.raises(ValueError, match=message):
        sentei.Pruner(Network(), recipe, total_steps=STEPS, state_dtype=BF16)
    with pytest.raises(ValueError, match=message):
        recipe.check_state(BF16)


@pytest.mark.parametrize(
    "recipe",
    [
        sentei.platon(0.7, beta2=0.99),
        sentei.platon(0.7, beta1=0.97),
        sentei.sensitivity(0.7, beta=0.97),
        sentei.sensitivity(0.7, window=33),
    ],
    ids=["beta2", "beta1", "beta", "window"],
)
def test_means_of_many_steps_are_refused(recipe):
    with pytest.raises(ValueError, match=r"by as little as 0\.0[13]\d* of the way"):
        recipe.check_state(BF16)
    recipe.check_state(torch.float32)


def test_a_mean_in_bf16_comes_as_near_as_is_said():
    kept = {"mean": torch.zeros(1, dtype=BF16)}
    for _ in range(2000):
        memory = widened(kept, torch.float32)
        memory["mean"].lerp_(torch.tensor([1.3]), LEAST_SHARE)
        round_(memory)
    assert 1.3 * (1 - 1 / 8) <= kept["mean"].item() <= 1.3


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match=r"state_dtype=torch.float16: what scores remember"):
        sentei.Pruner(Network(), PLATON, total_steps=STEPS, state_dtype=torch.float16)


@pytest.mark.parametrize("recipe", [MAGNITUDE, LATENT["leap of magnitudes"]], ids=str)
def test_where_no_score_remembers_nothing_changes(recipe):
    kept = [snapshot(Training(recipe, state_dtype=d).run(9).pruner) for d in (torch.float32, BF16)]
    assert same(kept[0] | {"state_dtype": "bfloat16"}, kept[1])
