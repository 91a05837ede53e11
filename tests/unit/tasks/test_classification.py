import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from helpers.tasks import task_of
from sentei.tasks.classification import Classification
from sentei.tasks.labelled_texts import LabelledTexts
from sentei.tasks.source import EVAL_SPLITS

ROWS = [("good", "pos"), ("bad", "neg"), ("fine", "pos"), ("poor", "neg")]
CSV = "text,label\ngood,pos\nbad,neg\nfine,pos\npoor,neg\n"


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def load_file(path, label_names=None, **options):
    examples = Classification(**options).read(path, EVAL_SPLITS)
    return examples if label_names is None else examples.relabel(label_names)


def load_files(train, evaluation, seed=0, **options):
    return Classification(train=train, eval=evaluation, **options).load(seed)


def refused(path, *parts, **options):
    """What loading says, which must hold all the parts."""
    with pytest.raises(ValueError) as caught:
        load_file(path, **options)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    return message


# ------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.CSV", CSV.replace("\n", "\r\n")),
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.csv", CSV + "\n\n"),
        ("a.tsv", CSV.replace(",", "\t").removesuffix("\n")),
        ("a.txt", CSV.replace(",", "\t").replace("\n", "\r\n")),
        ("a.jsonl", "\n".join(json.dumps({"text": t, "label": lab}) for t, lab in ROWS)),
        ("a.ndjson", "\n\n".join(json.dumps({"text": t, "label": lab}) for t, lab in ROWS)),
        ("a.json", json.dumps([{"text": t, "label": lab} for t, lab in ROWS], indent=1)),
    ],
)
def test_every_format_gives_the_same_examples(write, name, content):
    examples = load_file(write(name, content))
    assert examples.texts == [text for text, _ in ROWS]
    assert examples.pairs is None
    assert examples.labels == [1, 0, 1, 0]
    assert examples.label_names == ("neg", "pos")
    assert "text -> label, 4 rows" in examples.source
    assert len(examples) == 4


@pytest.mark.parametrize("delimiter", ["\t", "\\t"])
def test_ragged_regression_pairs_without_a_header_as_in_stsb(write, delimiter):
    path = write("a.csv", '4.5\ta "man\tb\n0\tc\td\textra\textra\n')
    examples = load_file(
        path,
        text_column="2",
        pair_column="3",
        label_column="1",
        header=False,
        regression=True,
        delimiter=delimiter,
        quoting="none",
    )
    assert (examples.texts, examples.pairs) == (['a "man', "c"], ["b", "d"])
    assert examples.labels == [4.5, 0.0]
    assert examples.label_names == ()


def test_byte_order_mark_before_a_headerless_label(write):
    path = write("a.tsv", "\ufeff1\ta\n0\tb\n")
    examples = load_file(path, text_column="2", label_column="1", header=False)
    assert examples.label_names == ("0", "1")


def test_json_labels_of_every_kind(write):
    def names(*labels):
        lines = [json.dumps({"text": "t", "label": label}) for label in labels]
        return load_file(write("a.jsonl", "\n".join(lines))).label_names

    assert names(True, False) == ("false", "true")
    assert names(2, 10, "9") == ("2", "9", "10")


def test_numeric_labels_sort_as_numbers_others_as_text(write):
    assert load_file(write("a.csv", "text,label\na,10\nb,9\nc,-1\n")).label_names == (
        "-1",
        "9",
        "10",
    )
    assert load_file(write("a.csv", "text,label\na,10\nb,9\nc,x\n")).label_names == (
        "10",
        "9",
        "x",
    )


@pytest.mark.parametrize(
    ("header", "text", "pair"),
    [
        ("id,sentence,label", "b", None),
        ("sentence1,sentence2,label", "a", "b"),
        ("question,sentence,label", "a", "b"),
        ("premise,hypothesis,label", "a", "b"),
    ],
)
def test_obvious_columns(write, header, text, pair):
    examples = load_file(write("a.csv", f"{header}\na,b,x\na,b,y\n"))
    assert examples.texts == [text] * 2
    assert examples.pairs == (None if pair is None else [pair] * 2)


def test_of_a_pair_one_text_may_be_empty(write):
    path = write("a.csv", "question1,question2,label\na,,0\n,b,1\n")
    assert load_file(path).pairs == ["", "b"]
    refused(write("a.csv", "question1,question2,label\na,,0\n, ,1\n"), "line 3", "empty")


# -------------------------------------------------------------------------------- errors


def test_wrong_column(write):
    path = write("a.csv", CSV)
    refused(
        path,
        "no column 'lable'; did you mean 'label'?",
        "'text', 'label'",
        "--label-column",
        "--no-header",
        label_column="lable",
    )
    refused(path, "no column 'b'", "--pair-column", text_column="text", pair_column="b")
    refused(path, "'1', '2'", "--label-column", text_column="1", header=False)
    refused(write("a.jsonl", '{"body": "a", "label": 1}'), "not obvious", "'body', 'label'")
    refused(write("b.csv", "text,sentence,label\na,b,c\n"), "not obvious", "'text', 'sentence'")
    refused(write("c.csv", "text,label,label\na,b,c\n"), "'label' 2 times")


def test_rows_that_are_too_short_for_what_is_asked(write):
    options = {"text_column": "3", "label_column": "1", "header": False}
    refused(write("b.tsv", "1\tx\ta\n\n0\tx\n"), "line 3", "column '3'", **options)


def test_empty_cells(write):
    refused(write("a.csv", "text,label\na,x\n  ,y\n"), "line 3", "'text' is empty")
    refused(write("a.csv", "text,label\na,x\nb, \n"), "line 3", "no label")
    refused(write("a.jsonl", '{"text": "a", "label": 1}\n{"label": 1}'), "line 2", "column 'text'")
    refused(write("a.jsonl", '{"text": null, "label": 1}'), "line 1", "column 'text'")
    refused(write("a.jsonl", '{"text": 5, "label": 1}'), "line 1", "5", "not a text")
    refused(write("a.jsonl", '{"text": "a", "label": null}'), "line 1", "no label")
    refused(write("a.jsonl", '{"text": "a", "label": NaN}'), "line 1", "no label")
    refused(write("a.jsonl", '{"text": "a", "label": [1]}'), "line 1", "[1]")


def test_classification_with_values(write):
    refused(write("a.csv", "text,label\na,1\nb,2.5\n"), "line 3", "'2.5'", "--regression")
    many = "".join(f"t,{i}\n" for i in range(1001))
    refused(write("a.csv", "text,label\n" + many), "1,001", "--regression")
    names = "".join(f"t,c{i}\n" for i in range(1001))
    assert len(load_file(write("a.csv", "text,label\n" + names)).label_names) == 1001


def test_regression_with_names(write):
    cases = {"x": "'x' is not a number", "nan": "nan", "inf": "finite", "": "no label"}
    for value, reason in cases.items():
        refused(write("a.csv", f"text,label\na,1\nb,{value}\n"), "line 3", reason, regression=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quoting": "some"}, "--quoting some: should be 'auto', 'none' or 'standard'"),
        ({"delimiter": "ab"}, "--delimiter is 'ab'"),
        ({"encoding": "utf-9"}, "--encoding is 'utf-9'"),
        ({"regression": "ranking"}, "--regression ranking"),
        ({"pair_column": "b"}, "--text-column"),
    ],
)
def test_options_that_make_no_sense(options, reason):
    with pytest.raises(ValueError, match=reason):
        task_of(**options).format()


# ----------------------------------------------------------------- training and evaluation


def test_training_file_makes_the_classes(write):
    train = write("a.csv", "text,label\na,x\nb,y\nc,z\n")
    _, evaluation = load_files(train, write("b.csv", "text,label\na,z\nb,x\n"))
    assert evaluation.labels == [2, 0]
    assert evaluation.label_names == ("x", "y", "z")


def test_label_only_in_the_evaluation_file(write):
    train = write("a.csv", CSV)
    evaluation = write("b.csv", "text,label\na,pos\nb,meh\nc,meh\nd,so\n")
    with pytest.raises(ValueError, match=r"b\.csv.*'meh' \(2 rows\), 'so' \(1 row\).*'neg', 'pos'"):
        load_files(train, evaluation)


def test_one_class_is_refused_in_training_only(write):
    path = write("a.csv", "text,label\na,x\nb,x\n")
    with pytest.raises(ValueError, match=r"a\.csv.*every example has the label 'x'"):
        load_files(path, None)
    assert load_file(path, label_names=("w", "x")).labels == [1, 1]


def test_evaluation_alone_takes_the_models_classes(write):
    path = write("a.csv", "text,label\na,1\nb,0\n")
    assert load_file(path, label_names=("1", "0")).labels == [0, 1]
    assert load_file(path, label_names=("LABEL_0", "LABEL_1")).labels == [1, 0]
    refused(path, "'1' (1 row)", "'no', 'yes'", label_names=("no", "yes"))
    assert load_file(path, regression=True, label_names=()).labels == [1.0, 0.0]


def test_split_is_stratified_disjoint_and_repeatable(write):
    lines = [f"text {i},{'rare' if i % 20 == 0 else 'common'}" for i in range(200)]
    path = write("a.csv", "text,label\n" + "\n".join(lines))
    train, evaluation = load_file(path).split(0.2, 0)
    assert Counter(evaluation.labels) == {0: 38, 1: 2}
    assert Counter(train.labels) == {0: 152, 1: 8}
    assert not set(train.texts) & set(evaluation.texts)
    assert "80% of a stratified split, seed 0, 160 rows" in train.source
    assert "20% of a stratified split, seed 0, 40 rows" in evaluation.source
    assert load_file(path).split(0.2, 0)[1] == evaluation
    assert load_file(path).split(0.2, 1)[1].texts != evaluation.texts

    shuffled = write("b.csv", "text,label\n" + "\n".join(reversed(lines)))
    again = load_file(shuffled).split(0.2, 0)[1]
    assert sorted(again.texts) == sorted(evaluation.texts)


def test_split_of_regression_and_of_pairs():
    examples = LabelledTexts(list("abcde"), list("vwxyz"), [0.1, 0.2, 0.3, 0.4, 0.5], (), "five")
    train, evaluation = examples.split(0.4, 0)
    together = [*zip(train.texts, train.pairs, train.labels, strict=True)]
    together += zip(evaluation.texts, evaluation.pairs, evaluation.labels, strict=True)
    assert len(evaluation) == 2
    expected = zip(examples.texts, examples.pairs, examples.labels, strict=True)
    assert sorted(together) == sorted(expected)
    assert "stratified" not in train.source


@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_on_both_sides_of_a_split(seed):
    texts = [f"text {i % 30}" for i in range(90)]  # every one three times, under two labels
    labels = [int(i >= 45) for i in range(90)]
    whole = LabelledTexts(texts, None, labels, ("x", "y"), "repeated")
    train, evaluation = whole.split(0.1, seed)
    assert not set(train.texts) & set(evaluation.texts)
    assert len(train) + len(evaluation) == 90 and 9 <= len(evaluation) <= 30
    assert set(train.labels) == set(evaluation.labels) == {0, 1}


def test_repeated_texts_never_take_a_class_from_training():
    whole = LabelledTexts(["a", "a", "b", "c"], None, [0, 0, 1, 1], ("x", "y"), "four")
    train, evaluation = whole.split(0.5, 0)
    assert train.texts.count("a") == 2 and len(evaluation) == 1
    with pytest.raises(ValueError, match="too few examples to set some aside"):
        LabelledTexts(["a"] * 4, None, [0, 0, 1, 1], ("x", "y"), "same").split(0.5, 0)


def test_split_never_takes_the_last_of_a_class():
    examples = LabelledTexts(list("abc"), None, [0, 0, 1], ("x", "y"), "three")
    train, evaluation = examples.split(0.9, 0)
    assert sorted(train.labels) == [0, 1]
    assert evaluation.labels == [0]
    with pytest.raises(ValueError, match=r"two: too few examples.*--eval"):
        LabelledTexts(list("ab"), None, [0, 1], ("x", "y"), "two").split(0.1, 0)
    with pytest.raises(ValueError, match="eval_fraction is 1"):
        examples.split(1, 0)


# --------------------------------------------------------------- datasets on disk and hub


def glue_like(rows):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        sentence1=datasets.Value("string"),
        sentence2=datasets.Value("string"),
        label=datasets.ClassLabel(names=["not_equivalent", "equivalent"]),
        idx=datasets.Value("int32"),
    )
    columns = {
        "sentence1": [f"a {i}" for i in range(rows)],
        "sentence2": [f"b {i}" for i in range(rows)],
        "label": [i % 2 for i in range(rows)],
        "idx": list(range(rows)),
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_saved_dataset(tmp_path):
    folder = tmp_path / "saved"
    glue_like(20).save_to_disk(folder)
    train, evaluation = load_files(folder, None, dataset="mrpc")
    assert (len(train), len(evaluation)) == (18, 2)
    # declared order, which is not the alphabetical one
    assert train.label_names == ("not_equivalent", "equivalent")
    assert train.pairs[0].startswith("b ")
    assert load_file(folder).labels[:2] == [0, 1]


def test_saved_dataset_with_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    both = {"train": glue_like(6), "test": glue_like(2), "validation": glue_like(4)}
    datasets.DatasetDict(both).save_to_disk(folder)
    train, evaluation = load_files(folder, None)
    assert (len(train), len(evaluation)) == (6, 4)
    assert "train split" in train.source
    assert "validation split" in evaluation.source
    assert len(load_file(folder)) == 4

    datasets.DatasetDict({"other": glue_like(2)}).save_to_disk(tmp_path / "other")
    refused(tmp_path / "other", "'other'", "'validation'")


def test_withheld_labels(tmp_path):
    hidden = glue_like(4).map(lambda row: {"label": -1})
    hidden.save_to_disk(tmp_path / "test")
    refused(tmp_path / "test", "row 1", "no label")


def test_hub_rows_become_examples(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(path, config):
        asked.append((path, config))
        return datasets.DatasetDict(train=glue_like(6), validation=glue_like(4))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    train, evaluation = Classification(dataset="mrpc").load(0)
    assert asked == [("nyu-mll/glue", "mrpc")]
    assert (len(train), len(evaluation)) == (6, 4)
    assert train.label_names == evaluation.label_names == ("not_equivalent", "equivalent")
    assert "nyu-mll/glue (mrpc), train split" in train.source


def test_hub_out_of_reach_is_one_message_at_once(tmp_path):
    pytest.importorskip("datasets")
    code = (
        "from sentei.tasks.classification import Classification\n"
        "try: Classification(dataset='sst2').load(0)\n"
        "except ValueError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    message = done.stdout
    assert len(message.splitlines()) == 1, done.stderr
    for part in ("nyu-mll/glue (sst2)", "hub cannot be reached", "--train FILE --eval FILE"):
        assert part in message
