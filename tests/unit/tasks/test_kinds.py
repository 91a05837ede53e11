from pathlib import Path

import pytest

from sentei.run.settings import Settings
from sentei.tasks import catalogue as tasks
from sentei.tasks import kinds


def of(**given):
    return kinds.of(Settings(model="m", recipe={}, **given))


def test_the_kind_is_named_or_that_of_the_task():
    assert of().name == "classification"
    assert {task.name: of(task=task.name).name for task in tasks.TASKS.values()} == {
        task.name: task.kind for task in tasks.TASKS.values()
    }
    assert of(kind="tokens").metrics == ("f1", "precision", "recall", "accuracy")
    assert of(task="demo").problem == "classification"
    assert of(regression=True).metrics == ("pearson", "spearman")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "token"}, r"--kind token; did you mean 'tokens'\?.*classification, tokens"),
        ({"kind": "tokens", "task": "squad"}, "squad is of the kind answers; leave --kind out"),
        ({"tags_column": "ner"}, "--tags-column: not read by --kind classification.*kind tokens"),
        ({"kind": "tokens", "label_column": "x"}, "belongs to --kind classification or images"),
        ({"kind": "answers", "flip": True}, "--flip: not read by --kind answers"),
        ({"kind": "images", "max_length": 64}, "--max-length: not read by --kind images"),
        ({"kind": "tokens", "quoting": "none"}, "--quoting: not read by --kind tokens; it belongs"),
        ({"kind": "tokens", "header": False}, "--no-header: not read by --kind tokens"),
        ({"kind": "images", "regression": True}, "--regression: not read by --kind images"),
        ({"kind": "tokens", "metric": "recal"}, r"did you mean 'recall'\? Choose from f1, "),
        (
            {"kind": "language", "metric": "accuracy"},
            r"--metric accuracy\. Choose from perplexity\.",
        ),
    ],
)
def test_settings_that_do_not_fit_the_kind(given, message):
    with pytest.raises(ValueError, match=message):
        of(**given)


def test_settings_that_several_kinds_read():
    of(kind="tokens", max_length=64, delimiter=" ", encoding="latin-1")
    for kind in ("classification", "answers", "language", "summaries"):
        of(kind=kind, max_length=64, delimiter=";", quoting="none", header=False)


def test_the_headline_comes_first():
    kind = of(kind="tokens", metric="recall")
    assert kind.metrics == ("recall", "f1", "precision", "accuracy")
    assert list(kind.in_order({"f1": 0.5, "recall": 0.25})) == ["recall", "f1"]


def test_columns_are_the_users_or_the_tasks():
    kind = of(task="wnut_17", tags_column="tags")
    assert kind.column("tokens_column") == "tokens"
    assert kind.column("tags_column") == "tags"
    assert of(kind="tokens").column("tags_column") is None


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("classification", "sklearn", "metrics"),
        ("tokens", "seqeval", "tokens"),
        ("images", "PIL", "vision"),
        ("summaries", "rouge_score", "summaries"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(kind, module, extra, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == module else find(name, *a)
    )
    with pytest.raises(ValueError, match=rf"needs {module}: pip install 'sentei\[{extra}\]'"):
        of(kind=kind).check_packages()


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_no_data(kind):
    with pytest.raises(ValueError, match="no data: name a task with --task, or a file"):
        of(kind=kind).load()


def test_evaluation_data_of_the_hub_come_alone(monkeypatch):
    datasets = pytest.importorskip("datasets")
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-x", "I-x"]))
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=tags)
    rows = {"tokens": [["a", "b"]] * 3, "ner_tags": [[1, 2]] * 3}
    part = datasets.Dataset.from_dict(rows, features=features)
    asked = []

    def load_dataset(path, config, revision):
        asked.append((path, config, revision))
        return datasets.DatasetDict(train=part, validation=part.select([0]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = of(task="wnut_17").load_evaluation(("B-x", "I-x", "O"))
    assert found.tags == [[0, 1]]
    train, evaluation = of(task="wnut_17").load()
    assert (len(train), len(evaluation), train.label_names) == (3, 1, ("O", "B-x", "I-x"))
    assert asked == [("leondz/wnut_17", None, tasks.CONVERTED)] * 2


def test_a_file_takes_the_place_of_the_hubs_evaluation_data(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["negative", "positive"])
    )
    rows = {"sentence": ["bad", "good"], "label": [0, 1]}
    part = datasets.Dataset.from_dict(rows, features=features)
    found = datasets.DatasetDict(train=part, validation=part)
    monkeypatch.setattr(datasets, "load_dataset", lambda path, config: found)
    file = tmp_path / "mine.csv"
    file.write_text("sentence,label\nfine,positive\n")
    train, evaluation = of(task="sst2", eval=file).load()
    assert (train.texts, evaluation.texts, evaluation.labels) == (["bad", "good"], ["fine"], [1])


@pytest.mark.parametrize("option", ["train", "eval"])
def test_the_demo_has_its_own_data(option, tmp_path):
    with pytest.raises(ValueError, match=rf"--{option} .*mine\.csv: --task demo .* leave --task"):
        of(task="demo", **{option: tmp_path / "mine.csv"}).load()


def test_saved_datasets_bring_their_own_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d"]})
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "saved")
    train, evaluation = of(kind="language", train=Path(tmp_path / "saved")).load()
    assert (train.rows, evaluation.rows) == (["a b", "c d"], ["a b"])
