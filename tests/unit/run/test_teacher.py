"""Who teaches, before anything is loaded."""

import pytest

import sentei
from sentei.run.settings import Settings, Teaching, Training
from sentei.run.teacher import Choice, choose_teacher, name_teacher, unless_untrained
from sentei.tasks.classification import Classification
from sentei.tasks.summaries import Summaries

PLAIN, TAUGHT, OPTIONAL = sentei.platon(), sentei.knowledge_aware(), sentei.auto()


def settings(task=None, dense=0.0, **teaching) -> Settings:
    return Settings(
        model="m",
        task=task or Classification(train="train.csv"),
        training=Training(dense_epochs=dense),
        recipe={},
        teacher=Teaching(**teaching),
    )


def test_a_run_makes_its_teacher_or_is_named_one():
    assert choose_teacher(settings(), PLAIN) == Choice()
    assert choose_teacher(settings(), TAUGHT) == Choice("self")
    assert choose_teacher(settings(dense=1), TAUGHT) == Choice("dense")
    assert choose_teacher(settings(dense=1, model="self"), TAUGHT) == Choice("dense")
    named = choose_teacher(settings(model="user/large"), TAUGHT)
    assert named.model == named.name == "user/large" and Choice("self").model is None


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="--teacher user/large: the recipe has no `distill`"):
        choose_teacher(settings(model="user/large"), PLAIN)
    with pytest.raises(ValueError, match="--teacher dense: there is no dense training"):
        choose_teacher(settings(model="dense"), TAUGHT)


def test_a_task_whose_models_cannot_learn():
    summaries = settings(Summaries(train="train.csv"))
    with pytest.raises(ValueError, match="--kind summaries learns from no teacher"):
        choose_teacher(summaries, TAUGHT)
    choice = choose_teacher(summaries, OPTIONAL)
    assert choice.name is None and choice.untaught.startswith("--kind summaries learns from none")


def test_a_recipe_that_can_do_without_says_why_it_does():
    choice = unless_untrained(Choice("self"), settings(), OPTIONAL, ("LABEL_0",), ("no", "yes"))
    assert choice.name is None and "--dense-epochs 3 would make one first" in choice.untaught
    with pytest.raises(ValueError, match="has no head trained for this task"):
        unless_untrained(Choice("self"), settings(), TAUGHT, ("LABEL_0",), ("no", "yes"))
    dense = Choice("dense")
    assert unless_untrained(dense, settings(), TAUGHT, (), ()) is dense


def test_a_comparison_names_its_dense_model():
    assert name_teacher(None, PLAIN, "dense/model") is None
    assert name_teacher(None, TAUGHT, "dense/model") == "dense/model"
    assert name_teacher("self", TAUGHT, "dense/model") == "dense/model"
    assert name_teacher("user/large", TAUGHT, "dense/model") == "user/large"
    assert name_teacher(None, TAUGHT, None) is None
    assert name_teacher(None, OPTIONAL, "dense/model") is None
