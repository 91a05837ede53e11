"""Finding a model, and loading it plain or shrunk."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
)

from helpers.shrinking import KINDS, zero_
from helpers.zoo import ZOO
from sentei.models.folder import is_shrunk, save
from sentei.models.loading import Head, is_a, load_model, load_pretrained, locate_model
from sentei.shrink import shrink

CLASSES = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


@pytest.fixture(params=["plain", "shrunk"])
def folder(request, tmp_path):
    model = ZOO["bert"].build()
    if request.param == "shrunk":
        zero_(model, KINDS["ragged"])
        model, _ = shrink(model)
    save(model, tmp_path / "model")
    assert is_shrunk(tmp_path / "model") is (request.param == "shrunk")
    return tmp_path / "model"


def test_a_model_loads_whether_shrunk_or_not(folder):
    model, info = load_pretrained(folder, BertForSequenceClassification)
    assert type(model) is BertForSequenceClassification
    assert not info.get("missing_keys") and not info.get("mismatched_keys")
    assert is_a(model, AutoModelForSequenceClassification) and not is_a(model, AutoModelForMaskedLM)


def test_a_body_alone_loads_whether_shrunk_or_not(folder):
    body, _ = load_pretrained(folder, AutoModel)
    whole, _ = load_pretrained(folder, BertForSequenceClassification)
    assert type(body).__name__ == "BertModel"
    expected = whole.bert.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in body.state_dict().items())


def test_a_head_is_given_and_its_classes_named(folder):
    head = Head(AutoModelForSequenceClassification, CLASSES)
    model, trained = load_model(str(folder), head)
    assert head.labels == ("no", "yes") and model.config.id2label == {0: "no", 1: "yes"}
    assert trained and model.dtype == torch.float32


def test_another_head_is_drawn_unless_the_model_is_shrunk(folder):
    names = {i: name for i, name in enumerate("abc")}
    three = {"num_labels": 3, "id2label": names, "label2id": {v: k for k, v in names.items()}}
    head = Head(AutoModelForSequenceClassification, three, "--kind classification")
    if is_shrunk(folder):
        with pytest.raises(ValueError, match="made for 2 labels, and the data have 3"):
            load_model(str(folder), head)
        with pytest.raises(ValueError, match="which is no model for --kind language"):
            load_model(str(folder), Head(AutoModelForMaskedLM, {}, "--kind language"))
    else:
        model, trained = load_model(str(folder), head)
        assert model.config.num_labels == 3 and not trained


def test_a_run_stands_for_its_model(folder, tmp_path):
    assert locate_model(str(tmp_path)) == (str(folder), str(folder))
    assert locate_model("user/name") == ("user/name", "user/name")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"--teacher .*empty: the folder holds no config\.json"):
        locate_model(str(tmp_path / "empty"), "teacher")
    with pytest.raises(ValueError, match=r"--model \./nowhere: no such folder"):
        locate_model("./nowhere")
