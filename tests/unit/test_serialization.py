"""Four spellings of one recipe, and what a typing mistake is told."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import sentei
from helpers.recipes import recipe_of
from sentei.methods import known
from sentei.methods.mgpp import MixtureGaussian
from sentei.methods.platon import Uncertainty
from sentei.methods.proximal import ReweightedL1
from sentei.parts.budget import Uniform
from sentei.parts.masks import Project
from sentei.parts.scores import Magnitude, Smoothed, SquaredSensitivity
from sentei.recipe import Recipe
from sentei.serialization import dump, load, override, to_dict

PLATON = sentei.platon(0.8)


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_every_method_round_trips(method, tmp_path):
    recipe = method.build(0.6, scope={"include": ["*.attention.*"], "exclude": ["*.bias"]})
    text = dump(recipe)
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert (
        load(text)
        == load(file)
        == load(str(file))
        == load(to_dict(recipe))
        == load(yaml.safe_load(text))
        == recipe
    )
    assert recipe.method == method.name and recipe.schedule.sparsity == 0.6


@given(
    sparsity=st.floats(0, 1, exclude_max=True),
    beta1=st.floats(0, 1, exclude_max=True),
    window=st.integers(1, 10**6),
    include=st.lists(st.text(), max_size=3),
)
def test_any_values_round_trip(sparsity, beta1, window, include):
    recipe = sentei.platon(sparsity, beta1=beta1, window=window, scope={"include": include})
    assert load(dump(recipe)) == recipe


def test_dump_is_complete_with_kinds_first():
    data = yaml.safe_load(dump(PLATON))
    assert list(data) == [
        *("method", "scope", "pattern", "score", "schedule", "budget", "mask"),
        *("reconstruction", "penalties", "distill", "dropout"),
    ]
    assert data["penalties"] == [] and data["distill"] is None
    assert data["score"] == {
        "kind": "uncertainty",
        "signal": {"kind": "sensitivity"},
        "window": 10,
        "iterate": "new",
        "beta1": 0.85,
        "beta2": 0.95,
    }
    assert all(next(iter(data[axis])) == "kind" for axis in ("score", "schedule", "budget", "mask"))


def test_a_short_recipe_gets_defaults():
    recipe = load("{method: mine, score: magnitude, schedule: {kind: cubic, sparsity: 0.5}}")
    assert recipe == Recipe(method="mine", score=Magnitude(), schedule=recipe.schedule)
    assert recipe.mask == Project() and recipe.schedule.sparsity == 0.5


def changed(**parts):
    data = to_dict(PLATON)
    for axis, part in parts.items():
        data[axis] = {**data[axis], **part} if isinstance(part, dict) else part
    return data


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (changed(score={"betta1": 0.5}), ["score.betta1", "did you mean 'beta1'?"]),
        ({**to_dict(PLATON), "shedule": {}}, ["setting shedule", "did you mean 'schedule'?"]),
        (changed(score={"kind": "uncertanty"}), ["score", "did you mean 'uncertainty'?"]),
        (changed(score={"kind": None}), ["score", "None is no kind of score: choose from"]),
        (changed(budget="globl"), ["budget", "did you mean 'global'?"]),
        (changed(budget=7), ["budget", "7 is no kind of budget"]),
        (changed(score={"signal": "senstivity"}), ["score.signal", "did you mean 'sensitivity'?"]),
        (changed(schedule={"sparsity": 1.0}), ["schedule.sparsity=1.0", "less than 1"]),
        (changed(schedule={"sparsity": float("nan")}), ["schedule.sparsity=nan", "finite"]),
        (changed(score={"window": 2.5}), ["score.window=2.5", "integer"]),
        (changed(score={"iterate": "newest"}), ["score.iterate='newest'", "'new' or 'old'"]),
        (
            changed(scope={"include": "*.weight"}),
            ["scope.include='*.weight': should be a list, in brackets"],
        ),
        ({"method": "x"}, ["score is missing", "schedule is missing"]),
        (changed(score={"beta1": 2, "beta2": -1}), ["score.beta1=2", "score.beta2=-1"]),
        ("[1, 2]", ["expected keys and values, found list"]),
        ("", ["expected keys and values, found NoneType"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_mistakes_are_named(source, messages):
    with pytest.raises(ValueError) as caught:
        load(source)
    assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert not isinstance(caught.value, ValidationError)


def test_unreadable_files(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ValueError, match=rf"{path}: .*(No such|no plain file)"):
            load(path)
    (tmp_path / "bad.yaml").write_text("score: [")
    with pytest.raises(ValueError, match=r"bad\.yaml: .* not valid YAML"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "typo.yaml").write_text("method: x\nscore: magnitud\n")
    with pytest.raises(ValueError, match=r"typo\.yaml: score.*did you mean 'magnitude'"):
        load(tmp_path / "typo.yaml")


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(ValueError, match=r"model\.bin"):
        load(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["score.beta1=0.9", "schedule.sparsity=0.5"], sentei.platon(0.5, beta1=0.9)),
        (["budget=uniform"], PLATON.model_copy(update={"budget": Uniform()})),
        (["budget.kind=uniform"], PLATON.model_copy(update={"budget": Uniform()})),
        (["mask.hold=true"], PLATON.model_copy(update={"mask": Project(hold=True)})),
        (["score={kind: smoothed, beta: 0.5}"], {"score": Smoothed(beta=0.5)}),
        (["score.kind=magnitude"], {"score": Magnitude()}),
        (["score.kind=uncertainty", "score.beta1=0.5"], {"score": Uncertainty(beta1=0.5)}),
        (["score.signal=squared_sensitivity"], {"score": Uncertainty(signal=SquaredSensitivity())}),
        (["score.kind=smoothed", "score.beta=0.5"], {"score": Smoothed(beta=0.5)}),
        (["score=smoothed", "score.beta=0.5"], {"score": Smoothed(beta=0.5)}),
        (["schedule.warmup=1e-2"], sentei.platon(0.8, warmup=0.01)),
        (["scope.include=['*.query.*']"], sentei.platon(0.8, scope={"include": ["*.query.*"]})),
        ([" method = mine "], {"method": "mine"}),
        ([], PLATON),
    ],
    ids=str,
)
def test_override(settings, expected):
    if isinstance(expected, dict):
        expected = PLATON.model_copy(update=expected)
    before = dump(PLATON)
    assert override(PLATON, settings) == expected
    assert dump(PLATON) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("score.betta1=0.5", r"no setting 'score\.betta1'; did you mean 'beta1'\?"),
        ("scor.beta1=0.5", r"no setting 'scor'; did you mean 'score'\?"),
        ("method.x=1", r"no setting 'method\.x'"),
        ("score.beta1.x=1", r"no setting 'score\.beta1\.x'"),
        ("distill.logits=1", r"no distill; .* first: --set distill=\{\}"),
        ("score.beta1", "expected path=value"),
        ("=1", "expected path=value"),
        ("score..beta1=1", "expected path=value"),
        ("scope.include=*.weight", "not valid YAML"),
        ("score.beta1=high", r"score\.beta1='high'"),
        ("score.kind=nonsense", "'nonsense' is no kind of score"),
        ("schedule.sparsity=1", r"schedule\.sparsity=1: .*less than 1"),
    ],
)
def test_wrong_overrides(setting, message):
    with pytest.raises(ValueError, match=message):
        override(PLATON, [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("distill.fade=0.5", "distill.fade=0.5: should be a list, in brackets"),
        (
            "distill.fade=[0, 0.5, 1]",
            "fade=[0, 0.5, 1]: should have at most 2 items, not 3",
        ),
        ("distill.layers=3", "distill.layers=3: should be a list, in brackets"),
    ],
)
def test_lists_are_asked_for_as_they_are_typed(setting, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        override(sentei.auto(), [setting])


def test_penalties_by_kind_and_by_number():
    text = """
    method: mine
    score: magnitude
    schedule: {kind: cubic, sparsity: 0.5}
    penalties: [mixture_gaussian, {kind: reweighted_l1, coefficient: 3}]
    """
    recipe = load(text)
    assert recipe.penalties == (MixtureGaussian(), ReweightedL1(coefficient=3))
    changed = override(
        recipe, ["penalties.1.coefficient=4", "penalties.0.spike=1e-9", "schedule.sparsity=0.6"]
    )
    assert changed.penalties == (MixtureGaussian(spike=1e-9), ReweightedL1(coefficient=4))
    assert changed.schedule.sparsity == 0.6


@pytest.mark.parametrize(
    ("settings", "penalties"),
    [
        (["penalties.0.coefficient=3"], (ReweightedL1(coefficient=3, epsilon=0.5),)),
        (["penalties.0=mixture_gaussian"], (MixtureGaussian(),)),
        (["penalties.0.kind=mixture_gaussian"], (MixtureGaussian(),)),
        (["penalties.0.kind=reweighted_l1"], (ReweightedL1(epsilon=0.5),)),
        (["penalties=[]"], ()),
        (["penalties=[reweighted_l1, mixture_gaussian]"], (ReweightedL1(), MixtureGaussian())),
        (["penalties=[mixture_gaussian]", "penalties.0.slab=0.1"], (MixtureGaussian(slab=0.1),)),
    ],
)
def test_override_of_penalties(settings, penalties):
    recipe = recipe_of(penalties=(ReweightedL1(epsilon=0.5),))
    assert override(recipe, settings).penalties == penalties


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("penalties.1.coefficient=3", r"no setting 'penalties\.1'"),
        ("penalties.-1.coefficient=3", r"no setting 'penalties\.-1'"),
        ("penalties.kind=score_l1", r"no setting 'penalties\.kind'"),
        ("penalties.0.coeficient=3", r"'penalties\.0\.coeficient'; did you mean 'coefficient'\?"),
        ("penalties.0.coefficient=-1", r"penalties\.0\.coefficient=-1"),
        ("penalties.0=reweighted", r"penalties\.0.*did you mean 'reweighted_l1'\?"),
        ("penalties=reweighted_l1", "penalties='reweighted_l1'"),
        ("penalties.0.kind=score_l1", "coefficient is missing"),
        ("penalties.0={kind: score_l1, coefficient: 1}", "penalty score_l1 is on learned scores"),
    ],
)
def test_wrong_overrides_of_penalties(setting, message):
    with pytest.raises(ValueError, match=message):
        override(recipe_of(penalties=(ReweightedL1(),)), [setting])


def test_an_unknown_setting_may_have_been_another_of_a_recipe_and_of_nothing_else():
    from sentei.run.settings import Training

    assert "epochs" in Training.model_fields  # a part too, but of no recipe
    recipe = to_dict(sentei.magnitude(0.5))
    with pytest.raises(ValueError, match=r"unknown setting epoch$"):
        sentei.load({**recipe, "epoch": 3})
    with pytest.raises(ValueError, match="unknown setting penaltys; did you mean 'penalties'"):
        sentei.load({**recipe, "penaltys": []})


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned round"])
def test_settings_that_fit_only_together(turned):
    pair = ["score.inputs.steps=5", "reconstruction.inputs.steps=5"]
    recipe = sentei.override(sentei.obs(0.5), pair[::-1] if turned else pair)
    assert recipe.score.inputs.steps == recipe.reconstruction.inputs.steps == 5
    with pytest.raises(ValueError, match=r"score\.inputs\.steps=5 is not"):
        sentei.override(sentei.obs(0.5), [pair[0], "no.such=1"])
