"""What a plan says, however it is spelled, and how a wrong one ends."""

from __future__ import annotations

import pytest
import yaml

import sentei
from helpers.plans import TASK, searched, small
from sentei import methods, serialization
from sentei.cli import comparison
from sentei.compare.plan import load
from sentei.run.settings import Training


def test_data_lie_beside_the_plan_or_on_the_hub(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "mine").touch()
    plan = small(tasks={"one": {"train": "user/mine", "eval": "user/other"}})
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    task = load(tmp_path / "plan.yaml").tasks["one"]
    assert (task["train"], task["eval"]) == (str(tmp_path / "user/mine"), "user/other")


def test_the_short_spelling_is_completed():
    plan = load(small())
    assert plan.baseline == "magnitude"
    assert plan.tasks["one"]["batch_size"] == 16 and plan.tasks["two"]["batch_size"] == 8
    assert plan.tasks["one"]["lr_warmup"] == Training.model_fields["lr_warmup"].default
    assert plan.recipes["taught"].settings == {"learning_rate": 1e-4}
    assert plan.recipes["taught"].recipe["score"]["beta2"] == 0.65
    assert set(plan.recipes["magnitude"].recipe) == set(
        serialization.to_dict(methods.find("l0").build())
    )


def test_a_method_beside_its_published_settings():
    from_list = load(small(recipes=["leap", "leap:published"]))
    options = {"model": "hub/name", **TASK}
    typed = comparison.plan_of(None, options, {"method": ["leap", "leap:published"]})
    for plan in (from_list, typed):
        assert list(plan.recipes) == ["leap", "leap-published"]
        published = serialization.load(plan.recipes["leap-published"].recipe)
        assert published.budget == sentei.published("leap").budget != sentei.leap().budget


@pytest.mark.parametrize(
    "search",
    [
        None,
        {"settings": {"learning_rate": ["5e-5", 1e-4]}, "set": {"score.beta2": [0.6, 0.9]}},
        {"settings": {"epochs": {"low": 1, "high": 3}}, "trials": 4, "sparsity": 0.9},
    ],
)
def test_complete_and_back(search, tmp_path):
    plan = load(small(tasks={"one": dict(TASK)}, **({"search": search} if search else {})))
    file = tmp_path / "plan.yaml"
    file.write_text(plan.dump())
    assert load(file) == plan


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "model").mkdir()
    recipe = serialization.dump(methods.find("mgpp").build(0.5))
    (tmp_path / "wide.yaml").write_text(recipe)
    file = tmp_path / "plan.yaml"
    task = {"model": "model", "train": "data/train.csv"}
    entries = {"wide": "wide.yaml", "platon": {"method": "platon", "teacher": "model"}}
    file.write_text(yaml.safe_dump({"tasks": {"x": task}, "recipes": entries, "sparsities": [0.9]}))
    plan = load(file)
    assert plan.tasks["x"]["train"] == str(tmp_path / "data" / "train.csv")
    assert plan.tasks["x"]["model"] == plan.recipes["platon"].teacher == str(tmp_path / "model")
    assert plan.recipes["wide"].recipe == yaml.safe_load(recipe)
    assert plan.recipes["platon"].recipe["distill"] is not None


@pytest.mark.parametrize("method", methods.known(), ids=lambda method: method.name)
def test_a_method_at_another_sparsity_is_its_recipe_with_that_sparsity(method):
    """Why a plan can hold one recipe for all sparsities."""
    override = serialization.override(method.build(), ["schedule.sparsity=0.93"])
    assert override == method.build(0.93)


BAD = {
    "key": (small(sparsitys=[0.8]), "unknown setting sparsitys; did you mean 'sparsities'?"),
    "missing": ({"tasks": {"x": {"model": "m"}}, "recipes": ["l0"]}, "sparsities is missing"),
    "common": (
        small(settings={"model": "m", "bach_size": 1}),
        "unknown setting settings.bach_size; did you mean 'batch_size'?",
    ),
    "task": (
        small(tasks={"one": {"trian": "x"}}),
        "unknown setting tasks.one.trian; did you mean 'train'?",
    ),
    "value": (
        small(tasks={"one": {"epochs": -1}}),
        "tasks.one.epochs=-1: should be",
    ),
    "common value": (
        small(settings={"model": "m", "clip": -1}),
        "settings.clip=-1: should be greater than or equal to 0",
    ),
    "seed": (small(settings={"seed": 3}), "settings.seed: not here; they are listed under `seeds`"),
    "model": (small(settings={}), "tasks.one.model is missing"),
    "method": (small(recipes={"a": "plato"}), "recipes.a: no method 'plato'; did you mean"),
    "file": (small(recipes={"a": "gone.yaml"}), "gone.yaml: cannot be read"),
    "both": (small(recipes={"a": {"method": "l0", "recipe": "x.yaml"}}), "recipes.a: name a"),
    "neither": (small(recipes={"a": {"teacher": "x"}}), "recipes.a: name a method or a recipe"),
    "entry": (
        small(recipes={"a": {"methd": "l0"}}),
        "unknown setting recipes.a.methd; did you mean 'method'?",
    ),
    "set": (
        small(recipes={"a": {"method": "platon", "set": ["score.beta3=1"]}}),
        "recipes.a: --set score.beta3=1: no setting 'score.beta3'; did you mean",
    ),
    "task's": (
        small(recipes={"a": {"method": "l0", "settings": {"max_length": 8}}}),
        "recipes.a.settings.max_length: the same for all recipes",
    ),
    "settings that do not fit": (
        small(recipes={"a": {"method": "l0", "settings": {"clip_each": True, "clip": 0}}}),
        "--clip-each: --clip 0 does not clip",
    ),
    "no dense": (
        small(recipes={"a": {"method": "l0", "teacher": "dense"}}),
        "recipes.a.teacher=dense: task two trains no dense model",
    ),
    "sparsity": (small(sparsities=[1.0]), "sparsities.0=1.0: should be less than 1"),
    "percent": (small(sparsities=[87.5]), "sparsities.0=87.5: is a fraction; for 87.5 % say 0.875"),
    "twice": (small(seeds=[1, 1]), "seeds: one of [1, 1] is there twice"),
    "name": (small(recipes={"dense": "l0"}), "recipes.dense: not a name for a folder"),
    "path": (small(tasks={"a/b": {}}), "tasks.a/b: not a name for a folder"),
    "baseline": (small(baseline="magnitud"), "no such recipe; did you mean 'magnitude'?"),
    "nothing to search": (searched(), "search: nothing to choose"),
    "range": (
        searched(settings={"epochs": {"low": 1, "high": 2}}),
        "search: epochs is a range, which has no end: say how many trials",
    ),
    "empty range": (
        searched(settings={"clip": {"low": 2, "high": 1}}, trials=2),
        "search.settings.clip: low=2 must be below high=1",
    ),
    "searched key": (searched(settings={"model": ["a"]}), "search.settings.model: the same for"),
    "searched value": (
        searched(settings={"learning_rate": [1e-4, -1]}),
        "search: learning_rate of recipe magnitude: learning_rate=-1",
    ),
    "searched together": (
        searched(settings={"lr_schedule": ["linear", "constant"], "lr_floor": [0, 0.1]}),
        "search: lr_schedule='constant', lr_floor=0.1 of recipe magnitude: --lr-floor 0.1: a const",
    ),
    "searched path": (
        searched(set={"score.beta3": [1]}),
        "search.set.score.beta3: no recipe has this; did you mean 'score.beta2'?",
    ),
    "infinite range": (
        searched(settings={"clip": {"low": 1, "high": float("inf")}}, trials=2),
        "=inf: should be a finite number",
    ),
    "huge range": (
        searched(settings={"seed": {"low": 1, "high": 10**400}}, trials=2),
        "should be at most 1e15 in size",
    ),
    "combinations": (
        searched(settings={name: list(range(1, 200)) for name in ("clip", "accumulate", "epochs")}),
        "7,880,599 combinations are more than 10,000: say how many trials",
    ),
    "trials": (searched(settings={"clip": [1]}, trials=10**30), "search.trials"),
    "runs": (small(seeds=list(range(3000))), "24,000 runs are more than 10,000: divide the plan"),
    "tasks": (small(tasks={f"t{i}": {} for i in range(10_001)}), "tasks: 10,001 are more than"),
    "seed of numpy's": (small(seeds=[2**32]), "seeds.0=4294967296: should be less than"),
    "twice in a list": (small(recipes=["l0", "mgpp", "l0"]), "recipes: 'l0' is there twice"),
    "a number's name": (small(tasks={"1": {}, 1: {}}), "tasks: '1' is there twice"),
    "long name": (small(recipes={"x" * 200: "l0"}), "not a name for a folder, which at most 100"),
    "escapes in a name": (small(tasks={"\x1b[31m": {}}), r"tasks.\x1b[31m: not a name"),
    "long value": (small(recipes={"a": {"method": "l0", "set": "x" * 10**6}}), "expected a list"),
    "long option": (small(settings={"model": "m", "precision": "x" * 10**6}), "precision='xxx"),
    "no evaluation file": (
        small(
            tasks={"one": {"train": "x.csv"}},
            search={"settings": {"learning_rate": [1e-4]}},
        ),
        "tasks.one.eval is missing",
    ),
}


@pytest.mark.parametrize(("plan", "message"), BAD.values(), ids=BAD.keys())
def test_bad_plans(plan, message):
    with pytest.raises(ValueError) as error:
        load(plan)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 2000


def test_what_is_kept_has_no_aliases():
    """Which a plan file must not have: the same settings of two tasks are written twice."""
    shared = {**TASK, "max_length": 64}
    plan = load(small(tasks={"one": shared, "two": shared}))
    assert "&id" not in plan.dump() and "*id" not in plan.dump()


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_bad_files(text, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"plan\.yaml"):
        load(file)
    with pytest.raises(ValueError, match=r"gone\.yaml: cannot be read"):
        load(tmp_path / "gone.yaml")


def test_a_tilde_in_a_plan_is_the_home_folder(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "model").mkdir(parents=True)
    (home / "train.csv").touch()
    (home / "mine.yaml").write_text(serialization.dump(methods.find("magnitude").build(0.5)))
    monkeypatch.setenv("HOME", str(home))
    task = {"model": "~/model", "train": "~/train.csv"}
    plan = load({"tasks": {"words": task}, "recipes": {"mine": "~/mine.yaml"}, "sparsities": [0.5]})
    assert plan.tasks["words"]["model"] == str(home / "model")
    assert plan.tasks["words"]["train"] == str(home / "train.csv")
