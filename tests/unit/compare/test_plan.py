"""What a plan says, however it is spelled, and how a wrong one ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sentei import methods, serialization
from sentei.compare.begin import check_still_asked
from sentei.compare.cells import Grid, write_once
from sentei.compare.choices import apply, count, grid, spell
from sentei.compare.plan import Plan, load
from sentei.run.options import settings_from
from sentei.run.settings import Training

TASK = {"train": "train.jsonl", "eval": "eval.csv", "epochs": 2, "dense_epochs": 1}


def small(**changes):
    """A plan in the short spelling."""
    plan = {
        "settings": {"model": "hub/name", "batch_size": 16},
        "tasks": {"one": dict(TASK), "two": {"task": "sst2", "batch_size": 8}},
        "recipes": {
            "magnitude": "magnitude",
            "taught": {
                "method": "platon",
                "set": ["score.beta2=0.65"],
                "settings": {"learning_rate": "1e-4"},  # YAML takes 1e-4 for a text
            },
        },
        "sparsities": [0.8, 0.9],
        "seeds": [1, 2],
    }
    return plan | changes


def searched(**changes):
    return small(tasks={"one": dict(TASK)}, search=changes)


def test_data_lie_beside_the_plan_or_on_the_hub(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "mine").touch()
    (tmp_path / "plan.yaml").write_text(
        yaml.safe_dump(small(tasks={"one": {"train": "user/mine", "eval": "user/other"}}))
    )
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
    "value": (small(tasks={"one": {"epochs": 0}}), "tasks.one.epochs=0: should be greater than 0"),
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
    "searched path": (
        searched(set={"score.beta3": [1]}),
        "search.set.score.beta3: no recipe has this; did you mean 'score.beta2'?",
    ),
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


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_bad_files(text, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"plan\.yaml"):
        load(file)
    with pytest.raises(ValueError, match=r"gone\.yaml: cannot be read"):
        load(tmp_path / "gone.yaml")


# ---------------------------------------------------------------------------------------- runs


def cells(plan: Plan, out: Path = Path("out")):
    return Grid(plan, out).cells


def test_every_run_is_there_after_what_it_needs():
    found = cells(load(small()))
    assert len(found) == len(set(found)) == 2 * (1 + 2 + 2 * 2 * 2)
    seen = set()
    for name, cell in found.items():
        assert set(cell.needs) <= seen and cell.folder == Path.cwd() / "out" / name
        seen.add(name)
    assert [n for n in found if "/start/" in n] == ["runs/one/start/seed1", "runs/one/start/seed2"]


def test_runs_start_from_the_dense_model_of_their_task_and_seed():
    entries = {
        "platon": {"method": "platon", "teacher": "dense"},
        "fresh": "knowledge_aware",
        "named": {"method": "knowledge_aware", "teacher": "a/teacher"},
        "plain": "l0",
        "optional": "auto",
        "asked": {"method": "auto", "teacher": "dense"},
    }
    found = cells(load(small(tasks={"one": dict(TASK)}, recipes=entries)))
    dense = str(Path.cwd() / "out/runs/one/start/seed2/model")
    made = {r: found[f"runs/one/{r}/0.8/seed2"].settings for r in entries}
    taught = {r: (settings.model, settings.teacher.model) for r, settings in made.items()}
    assert taught["platon"] == (dense, dense)
    assert taught["fresh"] == ("hub/name", dense)
    assert taught["named"] == (dense, "a/teacher")
    assert taught["plain"] == (dense, None)
    assert taught["optional"] == (dense, None)  # so: itself
    assert taught["asked"] == (dense, dense)
    start, reference = (found[f"runs/one/{r}/seed2"].settings for r in ("start", "dense"))
    assert (start.model, start.training.epochs, start.training.seed) == ("hub/name", 1, 2)
    assert (reference.model, reference.training.epochs, reference.training.seed) == (dense, 2, 2)
    assert all(cell.settings.training.dense_epochs == 0 for cell in found.values())
    assert start.recipe["schedule"]["sparsity"] == 0


def test_trials_never_see_the_evaluation_data_nor_a_model_that_saw_what_judges_them():
    plan = load(searched(settings={"learning_rate": [1e-4, 2e-4]}, set={"score.beta2": [0.6, 0.9]}))
    found = cells(plan)
    trials = [cell for cell in found.values() if cell.role == "trial"]
    assert len(trials) == 2 * (2 + 4)  # magnitude has no beta2
    start = found["search/one/start"]
    for cell in [start, *trials]:
        assert cell.settings.task.holdout == 0.2 and cell.seed == 1
    assert {cell.settings.model for cell in trials} == {str(start.folder / "model")}
    others = [cell for cell in found.values() if not cell.name.startswith("search/")]
    assert {cell.settings.task.holdout for cell in others} == {None}
    pruned = found["runs/one/taught/0.9/seed2"]
    assert pruned.search == "search/one/taught/0.9"
    once = cells(load(searched(settings={"clip": [1, 2]}, sparsity=0.7)))
    assert once["runs/one/taught/0.9/seed2"].search == "search/one/taught/all"
    assert once["search/one/taught/all/001"].settings.recipe["schedule"]["sparsity"] == 0.7


# --------------------------------------------------------------------------------------- values


def test_a_worker_stops_where_the_plan_now_asks_for_another_run(tmp_path):
    old = Grid(load(small()), tmp_path)
    taught, other = (f"runs/one/{name}/0.8/seed1" for name in ("taught", "magnitude"))
    changed = small(seeds=[1])
    changed["recipes"]["taught"]["settings"] = {"learning_rate": 2e-4}
    (tmp_path / "plan.yaml").write_text(load(changed).dump())
    check_still_asked(old, old.cells[other])
    with pytest.raises(
        ValueError, match=r"taught/0.8/seed1 with learning_rate=0.0002 where it was"
    ):
        check_still_asked(old, old.cells[taught])
    with pytest.raises(ValueError, match=r"leaves runs/one/magnitude/0.8/seed2 out"):
        check_still_asked(old, old.cells["runs/one/magnitude/0.8/seed2"])


def test_some_runs_with_all_they_wait_for():
    made = Grid(load(searched(settings={"learning_rate": [1e-4, 2e-4]}, sparsity=0.9)), Path("out"))
    names = [cell.name for cell in made.wanted(["one/taught/0.9/seed2", "one/dense/seed1"])]
    assert names == [
        "search/one/start",
        "search/one/taught/all/000",
        "search/one/taught/all/001",
        "runs/one/start/seed1",
        "runs/one/dense/seed1",
        "runs/one/start/seed2",
        "runs/one/taught/0.9/seed2",
    ]
    assert made.wanted(["*"]) == list(made.cells.values())
    assert {cell.sparsity for cell in made.wanted(["*/0.8/*"])} == {0.8, 0.9, 0}  # 0.9: the search
    with pytest.raises(ValueError, match=r"--only one/tought/\*: .* like one/taught/0\.[89]/seed"):
        made.wanted(["one/tought/*"])


def test_a_grid_is_every_combination_once():
    plan = load(searched(settings={"clip": [1, 2], "epochs": [1, 2, 3]}))
    space = plan.space("magnitude")
    found = grid(space, None)
    assert len(found) == len({tuple(c.items()) for c in found}) == count(space, None) == 6
    some = grid(space, 4)
    assert len(some) == count(space, 4) == 4 and all(c in found for c in some)
    assert grid(space, 4) == some and count(space, 100) == 6


def test_chosen_values_find_their_places():
    settings = settings_from({"model": "m"}, serialization.to_dict(methods.find("platon").build()))
    found = apply(settings, {"learning_rate": 3e-4, "score.beta2": 0.7, "budget": "uniform"})
    assert found.training.learning_rate == 3e-4
    assert found.recipe["score"]["beta2"] == 0.7 and found.recipe["budget"]["kind"] == "uniform"


@pytest.mark.parametrize("value", [1e-05, 0.1, 3, True, None, "uniform", "a: b"])
def test_spelled_values_read_back(value):
    assert yaml.safe_load(spell(value)) == value


def test_the_first_writer_decides(tmp_path):
    file = tmp_path / "new" / "file"
    assert write_once(file, "first") and not write_once(file, "second")
    assert file.read_text() == "first" and list(file.parent.iterdir()) == [file]
