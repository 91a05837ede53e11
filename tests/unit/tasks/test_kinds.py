from pathlib import Path
from typing import Literal

import pytest

from helpers.tasks import SEED
from helpers.tasks import task_of as of
from sentei.tasks import catalogue, kinds
from sentei.tasks.language import Language
from sentei.tasks.task import Task


def test_the_kind_is_named_or_that_of_the_dataset():
    assert of().label == "classification"
    datasets = catalogue.DATASETS.values()
    assert {known.name: of(task=known.name).label for known in datasets} == {
        known.name: known.kind for known in datasets
    }
    assert of(kind="tokens").metric_names == ("f1", "precision", "recall", "accuracy")
    assert of(task="demo").problem == "classification"
    assert of(regression=True).metric_names == ("pearson", "spearman")


def test_a_mapping_is_the_task_of_its_kind():
    assert Task.model_validate({"kind": "language", "max_length": 8}) == Language(max_length=8)
    assert type(Task.model_validate({"dataset": "squad"})) is kinds.known()["answers"]
    dump = of(task="stsb", max_length=64).model_dump(mode="json")
    assert Task.model_validate(dump) == of(task="stsb", max_length=64)


def test_a_task_of_another_package_is_known_at_once():
    class Poems(Language):
        """Running text in lines."""

        kind: Literal["poems"] = "poems"

        rhyme: str | None = None
        """What the lines end in."""

    try:
        task = of(kind="poems", rhyme="aabb", max_length=8)
        assert (type(task), task.rhyme, task.usual_length) == (Poems, "aabb", 512)
        with pytest.raises(ValueError, match=r"--rhyme: not read by --kind language.*kind poems"):
            of(kind="language", rhyme="aabb")
    finally:  # classes are known for as long as anything holds them
        Poems.model_fields.clear()


def test_an_option_that_several_tasks_read_is_the_same_in_all():
    for name in {name for task in kinds.OURS for name in task.model_fields} - {"kind"}:
        fields = [task.model_fields[name] for task in kinds.OURS if name in task.model_fields]
        assert len({(one.description, one.default, str(one.annotation)) for one in fields}) == 1
        assert fields[0].description


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
def test_options_that_do_not_fit_the_kind(given, message):
    with pytest.raises(ValueError, match=message):
        of(**given)


def test_settings_that_several_kinds_read():
    of(kind="tokens", max_length=64, delimiter=" ", encoding="latin-1")
    for kind in ("classification", "answers", "language", "summaries"):
        of(kind=kind, max_length=64, delimiter=";", quoting="none", header=False)


def test_the_headline_comes_first():
    task = of(kind="tokens", metric="recall")
    assert task.metric_names == ("recall", "f1", "precision", "accuracy")
    assert list(task.headline_first({"f1": 0.5, "recall": 0.25})) == ["recall", "f1"]


def test_columns_are_the_users_or_the_datasets():
    task = of(task="wnut_17", tags_column="tags")
    assert (task.tokens_column, task.tags_column) == ("tokens", "tags")
    assert of(kind="tokens").tags_column is None
    pair = of(task="mrpc")
    assert (pair.text_column, pair.pair_column) == ("sentence1", "sentence2")
    own = of(task="mrpc", text_column="text")
    assert (own.text_column, own.pair_column, own.label_column) == ("text", None, "label")
    assert of(task="stsb").regression and not of(task="stsb", regression=False).regression


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
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


@pytest.mark.parametrize("kind", kinds.known())
def test_no_data(kind):
    with pytest.raises(ValueError, match="no data: name a task with --task, or a file"):
        of(kind=kind).load(SEED)


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
    sentences = of(task="wnut_17").load_evaluation(("B-x", "I-x", "O"), SEED)
    assert sentences.tags == [[0, 1]]
    train, evaluation = of(task="wnut_17").load(SEED)
    assert (len(train), len(evaluation), train.label_names) == (3, 1, ("O", "B-x", "I-x"))
    assert asked == [("leondz/wnut_17", None, catalogue.CONVERTED)] * 2


def test_any_dataset_of_the_hub_by_its_name(monkeypatch):
    import datasets

    tags = datasets.List(datasets.ClassLabel(names=["O", "B-x", "I-x"]))
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), tags=tags)
    rows = {"tokens": [["a", "b"]] * 3, "tags": [[1, 2]] * 3}
    part = datasets.Dataset.from_dict(rows, features=features)
    parts = datasets.DatasetDict(train=part, test=part.select([0]))
    monkeypatch.setattr(datasets, "load_dataset", lambda path, config: parts)
    train, evaluation = of(kind="tokens", train="user/name").load(SEED)
    assert (len(train), len(evaluation), train.label_names) == (3, 1, ("O", "B-x", "I-x"))
    assert "user/name, test split" in evaluation.source


def test_a_file_takes_the_place_of_the_hubs_evaluation_data(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["negative", "positive"])
    )
    rows = {"sentence": ["bad", "good"], "label": [0, 1]}
    part = datasets.Dataset.from_dict(rows, features=features)
    parts = datasets.DatasetDict(train=part, validation=part)
    monkeypatch.setattr(datasets, "load_dataset", lambda path, config: parts)
    file = tmp_path / "mine.csv"
    file.write_text("sentence,label\nfine,positive\n")
    train, evaluation = of(task="sst2", eval=file).load(SEED)
    assert (train.texts, evaluation.texts, evaluation.labels) == (["bad", "good"], ["fine"], [1])


def test_the_demo_is_found_as_other_datasets_are():
    assert of(task="Demo").is_demo and of(task="demo").is_demo
    assert not of(task="sst2").is_demo and not of().is_demo


@pytest.mark.parametrize("option", ["train", "eval"])
def test_the_demo_has_its_own_data(option, tmp_path):
    with pytest.raises(ValueError, match=rf"--{option} .*mine\.csv: --task demo .* leave --task"):
        of(task="demo", **{option: tmp_path / "mine.csv"}).load(SEED)


def test_saved_datasets_bring_their_own_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d"]})
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "saved")
    train, evaluation = of(kind="language", train=Path(tmp_path / "saved")).load(SEED)
    assert (train.rows, evaluation.rows) == (["a b", "c d"], ["a b"])
