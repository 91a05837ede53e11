"""Texts in; labels or vectors out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer, pipeline

from helpers.encoders import build
from sentei import runtime
from sentei.models.pooling import Pooling, read_pooling

TEXTS = ["the film was good", "a meal", "the book was awful the book was awful", "fine", ""]


def folder(tiny_model, path, head, **settings):
    torch.manual_seed(0)
    kind = getattr(transformers, f"AutoModelFor{head}")
    model = kind.from_pretrained(tiny_model, **settings)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(path)
    return path


@pytest.mark.parametrize("size", [1, 2, 32])
def test_classes(tiny_model, tmp_path, core, size):
    path = str(folder(tiny_model, tmp_path, "SequenceClassification", num_labels=3))
    found = runtime.compile(path, "fp32").predict(TEXTS, batch_size=size)
    expected = pipeline("text-classification", path, device="cpu")(TEXTS)
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    scores = [one["score"] for one in expected]
    np.testing.assert_allclose([one["score"] for one in found], scores, rtol=1e-4)


def test_order_and_batches(tiny_model, tmp_path, reference):
    path = folder(tiny_model, tmp_path, "SequenceClassification")
    engine = runtime.compile(path)
    whole = engine.predict(TEXTS)
    assert [engine.predict([text])[0] == pytest.approx(whole[i]) for i, text in enumerate(TEXTS)]
    runs = reference[0].runs
    engine.predict(TEXTS, batch_size=2)
    assert reference[0].runs == runs + 3
    assert engine.predict([]) == []


def test_pairs(tiny_model, tmp_path, reference):
    path = folder(tiny_model, tmp_path, "SequenceClassification")
    engine = runtime.compile(path)
    pairs = [("the film", "was good"), ("a meal", "the book was awful")]
    tokenizer = AutoTokenizer.from_pretrained(path)
    logits = engine(
        **tokenizer(*zip(*pairs, strict=True), padding=True, return_tensors="pt")
    ).logits
    scores = logits.softmax(-1).amax(-1).tolist()
    np.testing.assert_allclose([one["score"] for one in engine.predict(pairs)], scores, rtol=1e-5)


def test_regression_and_several_labels(tiny_model, tmp_path, reference):
    path = folder(tiny_model, tmp_path / "one", "SequenceClassification", num_labels=1)
    numbers = runtime.compile(path).predict(TEXTS)
    assert all(isinstance(number, float) for number in numbers)
    settings = {"num_labels": 3, "problem_type": "multi_label_classification"}
    path = folder(tiny_model, tmp_path / "several", "SequenceClassification", **settings)
    engine = runtime.compile(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    for text, labels in zip(TEXTS, engine.predict(TEXTS), strict=True):
        scores = engine(**tokenizer(text, return_tensors="pt")).logits[0].sigmoid()
        assert [one["label"] for one in labels] == [
            f"LABEL_{number}" for number in range(3) if scores[number] >= 0.5
        ]


def test_tokens(tiny_model, tmp_path, core):
    labels = {0: "O", 1: "B", 2: "I"}
    path = folder(tiny_model, tmp_path, "TokenClassification", id2label=labels)
    found = runtime.compile(path, "fp32").predict(TEXTS)
    expected = pipeline("token-classification", str(path), device="cpu")(TEXTS)
    for one, other in zip(found, expected, strict=True):
        for token, same in zip(one, other, strict=True):
            assert (token["label"], token["start"], token["end"]) == (
                *(same["entity"], same["start"], same["end"]),
            )
            assert token["score"] == pytest.approx(float(same["score"]), rel=1e-3)


def test_long_texts_are_cut(tiny_model, tmp_path, reference):
    path = folder(tiny_model, tmp_path, "SequenceClassification")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(path)
    engine = runtime.compile(path)
    assert engine.longest == 64
    assert len(engine.predict(["good " * 100])) == 1


def test_what_has_no_labels(tiny_model, tmp_path, reference):
    path = folder(tiny_model, tmp_path, "QuestionAnswering")
    with pytest.raises(ValueError, match="a BertForQuestionAnswering labels neither texts nor"):
        runtime.compile(path).predict(TEXTS)
    engine = runtime.compile(build("bert", "ForSequenceClassification"))
    with pytest.raises(ValueError, match="no tokenizer: give it one"):
        engine.predict(TEXTS)
    with pytest.raises(ValueError, match="give a list of texts"):
        engine.predict("the film was good")
    with pytest.raises(ValueError, match="type vit reads no texts"):
        runtime.compile(build("vit")).embed(TEXTS)


# ----------------------------------------------------------------------------------------- vectors


def test_mean(tiny_model, core):
    engine = runtime.compile(tiny_model, "fp32")
    vectors = engine.embed(TEXTS)
    assert vectors.shape == (5, 16) and vectors.dtype == np.float32
    model = transformers.BertModel.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden.mean(0).numpy(), atol=1e-5)
    assert engine.embed([]).shape == (0, 16)


def test_of_a_model_with_a_head(tiny_model, tmp_path, reference):
    path = folder(tiny_model, tmp_path, "SequenceClassification")
    np.testing.assert_allclose(
        runtime.compile(path).embed(TEXTS), runtime.compile(tiny_model).embed(TEXTS), atol=1e-6
    )


@pytest.mark.parametrize(
    "modes",
    ["mean", "cls", "max", ("cls", "mean"), "lasttoken", "weightedmean", "mean_sqrt_len_tokens"],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_as_sentence_transformers(tiny_model, tmp_path, reference, modes, normalize):
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Normalize, Pooling, Transformer

    modules = [Transformer(str(tiny_model)), Pooling(16, modes), *([Normalize()] * normalize)]
    model = library.SentenceTransformer(modules=modules, device="cpu")
    model.max_seq_length = 6
    model.save(str(tmp_path))
    np.testing.assert_allclose(
        runtime.compile(tmp_path).embed(TEXTS), model.encode(TEXTS), atol=1e-5
    )


def modules(path, *kinds, **pooling):
    (path / "1_Pooling").mkdir()
    listed = [
        {"path": "1_Pooling" if kind == "Pooling" else "", "type": f"sentence_transformers.{kind}"}
        for kind in kinds
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def test_files_of_sentence_transformers(tmp_path):
    assert read_pooling(tmp_path) == Pooling()
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    modules(tmp_path, "models.Transformer", "Pooling", "models.Normalize", **old)
    settings = {"max_seq_length": 7, "do_lower_case": True}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))
    prompts = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert read_pooling(tmp_path) == Pooling(("cls",), True, 7, True, "q: ", {"query": "q: "})


@pytest.mark.parametrize(
    "kinds, pooling, reason",
    [
        (("Transformer", "Pooling", "Dense"), {}, "lists Transformer, Pooling, Dense"),
        (("Transformer",), {}, "lists Transformer: known are"),
        (("Transformer", "Pooling"), {"pooling_mode": "median"}, "median; known are cls"),
        (("Transformer", "Pooling"), {"pooling_mode_of_tomorrow": True}, "of_tomorrow"),
    ],
)
def test_what_embed_does_not_know(tmp_path, kinds, pooling, reason):
    modules(tmp_path, *kinds, **pooling)
    with pytest.raises(ValueError, match=reason):
        read_pooling(tmp_path)


def test_damaged_files(tmp_path):
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ValueError, match=r"modules.json: cannot be read"):
        read_pooling(tmp_path)
