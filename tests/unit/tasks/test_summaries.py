import json

import pytest
from transformers import AutoTokenizer

from helpers.tasks import SEED, task_of
from sentei.tasks.summaries import SummaryPairs, rouge
from sentei.tasks.task import Prediction

pytest.importorskip("rouge_score")


def of(**options):
    return task_of(kind="summaries", **options)


@pytest.fixture
def write(tmp_path):
    def _write(rows):
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return path

    return _write


def load(path, **given):
    return of(eval=path, **given).load_evaluation((), SEED)


@pytest.mark.parametrize(
    ("text", "target"), [("document", "summary"), ("article", "highlights"), ("text", "target")]
)
def test_usual_columns_are_found(write, text, target):
    pairs = load(write([{"id": 1, text: "long", target: "short"}]))
    assert (pairs.texts, pairs.targets) == (["long"], ["short"])
    assert f"({text} -> {target}, 1 row)" in pairs.source


def test_columns_by_name(write):
    path = write([{"de": "lang", "en": "long"}])
    assert load(path, text_column="de", target_column="en").targets == ["long"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "x", "summary": "y"}], r"no column 'text'.*'body', 'summary'.*--text-column"),
        ([{"text": "x"}], r"no column 'summary'.*--target-column"),
        ([{"text": "x", "document": "y", "summary": "z"}], "'text' and 'document'; choose with"),
        ([{"text": "x", "summary": " "}], "line 1: the text in column 'summary' is empty"),
        ([{"text": "", "summary": "y"}], "line 1: the text in column 'text' is empty"),
        ([{"text": 3, "summary": "y"}], "line 1: column 'text' holds 3, which is not a text"),
    ],
)
def test_bad_rows(write, rows, message):
    with pytest.raises(ValueError, match=message):
        load(write(rows))


def test_both_sides_are_cut_and_padded(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    task = of(max_length=5, max_new_tokens=4, prefix="a ")
    pairs = SummaryPairs(["the film was good", "film"], ["the film was", "good"], "two")
    features = task.features(pairs, tokenizer, seed=SEED)
    assert tokenizer.decode(features[0]["input_ids"]) == "[CLS] a the film [SEP]"
    assert tokenizer.decode(features[0]["labels"]) == "[CLS] the film [SEP]"
    batch = task.collator(tokenizer)([features[0], features[1]])
    assert batch["labels"][1].tolist() == [*features[1]["labels"], -100]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert task.truncated(features, tokenizer) == 0.5


def test_rouge_by_hand():
    # 3 of 4 words agree both ways; pairs: "film was" of 3; longest common run: the film was
    scores = rouge(["the film was good"], ["the old film was"])
    assert scores == pytest.approx({"rougeL": 3 / 4, "rouge1": 3 / 4, "rouge2": 1 / 3})
    assert rouge(["the films"], ["the film"])["rouge1"] == 1  # stems are compared
    assert rouge([""], ["x"]) == {"rougeL": 0, "rouge1": 0, "rouge2": 0}
    both = rouge(["good", "bad"], ["good", "good"])
    assert both["rouge1"] == 0.5  # a mean over texts


def test_texts_stay_in_order_over_batches():
    task = of(metric="rouge1")
    pairs = SummaryPairs(["a", "b", "c"], ["one", "two", "three"], "three")
    predictions = [Prediction(0.0, 1, ["one", "two"]), Prediction(0.0, 1, ["three"])]
    measured = task.metrics(predictions, pairs, None)
    assert measured["rouge1"] == 1 and next(iter(measured)) == "rouge1"
