"""What a search may choose, and a run's settings with the choice in their places."""

from __future__ import annotations

import pytest
import yaml

from helpers.plans import searched
from sentei import methods, serialization
from sentei.compare.choices import apply, combinations, count, spell
from sentei.compare.plan import load
from sentei.run.options import settings_from


def test_a_grid_is_every_combination_once():
    plan = load(searched(settings={"clip": [1, 2], "epochs": [1, 2, 3]}))
    space = plan.space("magnitude")
    found = combinations(space, None)
    assert len(found) == len({tuple(c.items()) for c in found}) == count(space, None) == 6
    some = combinations(space, 4)
    assert len(some) == count(space, 4) == 4 and all(c in found for c in some)
    assert combinations(space, 4) == some and count(space, 100) == 6
    assert some == sorted(some, key=found.index)


def test_of_more_combinations_than_memory_holds_some_are_drawn():
    names = ("batch_size", "accumulate", "evaluations", "checkpoints", "weight_decay", "clip")
    many = {name: list(range(1, 100)) for name in names}
    plan = load(searched(settings=many, trials=5))
    found = combinations(plan.space("magnitude"), 5)
    assert len({tuple(one.items()) for one in found}) == 5
    assert all(list(one) == list(names) and {*one.values()} <= {*range(100)} for one in found)


def test_chosen_values_find_their_places():
    settings = settings_from({"model": "m"}, serialization.to_dict(methods.find("platon").build()))
    found = apply(settings, {"learning_rate": 3e-4, "score.beta2": 0.7, "budget": "uniform"})
    assert found.training.learning_rate == 3e-4
    assert found.recipe["score"]["beta2"] == 0.7 and found.recipe["budget"]["kind"] == "uniform"
    found = apply(settings, {"optimizer": "bert_adam", "lr_schedule": "cosine", "clip_each": True})
    assert found.training.optimizer == "bert_adam" and found.training.clip_each


@pytest.mark.parametrize("value", [1e-05, 0.1, 3, True, None, "uniform", "a: b"])
def test_spelled_values_read_back(value):
    assert yaml.safe_load(spell(value)) == value
