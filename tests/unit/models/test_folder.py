"""Folders of models: what goes along, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, BertTokenizer

from helpers.shrinking import KINDS, zero_
from helpers.zoo import ZOO
from sentei.models.folder import MANIFEST, load, save
from sentei.shrink import shrink
from sentei.shrink.vocabulary.rows import find_tables


def test_other_files_come_along_and_old_weights_do_not(tmp_path):
    source = tmp_path / "source"
    model = ZOO["bert"].build()
    zero_(model, KINDS["ragged"])
    smaller, _ = shrink(model)
    model.save_pretrained(source, max_shard_size="20KB")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good"]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(source)
    (source / "README.md").write_text("a card")
    stale = ("pytorch_model.bin", "model.onnx", "model.onnx_data", "rust_model.ot", "a.gguf")
    for name in (*stale, "b.tflite", "openvino_model.xml", "openvino_model.bin"):
        (source / name).write_text("old")
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "../elsewhere"}]
    (source / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling/config.json", "2_Dense/model.safetensors", "onnx/model.onnx"):
        (source / name).parent.mkdir()
        (source / name).write_text("of a module")
    (tmp_path / "elsewhere").mkdir()
    save(smaller, tmp_path / "out", files=source)
    found = {path.name for path in (tmp_path / "out").iterdir()}
    named = {"tokenizer.json", "tokenizer_config.json", "README.md", "modules.json"}
    named |= {"1_Pooling", "2_Dense"}
    assert found == {"config.json", "model.safetensors", MANIFEST} | named
    for name in ("1_Pooling/config.json", "2_Dense/model.safetensors"):
        assert (tmp_path / "out" / name).read_text() == "of a module"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "elsewhere", "out"}
    assert load(tmp_path / "out", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_an_empty_folder_that_one_is_in_is_written_to(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save(ZOO["bert"].build(), ".")
    assert {path.name for path in Path().iterdir()} == {"config.json", "model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    with pytest.raises(ValueError, match=r"^\. is not empty"):
        save(ZOO["bert"].build(), ".")


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    out = tmp_path / "out"
    model = ZOO["bert"].build()
    zero_(model, KINDS["ragged"])
    save(shrink(model)[0], out)
    with pytest.raises(ValueError, match=r"out is not empty: name a new or empty folder"):
        save(model, out)

    written = json.loads((out / MANIFEST).read_text())

    def refused(**change):
        (out / MANIFEST).write_text(json.dumps(written | change))
        with pytest.raises(ValueError) as caught:
            load(out)
        return str(caught.value)

    first, *rest = written["structures"]
    assert "it does not say what is left of the 4 heads" in refused(structures=rest)
    more = {"unit": "head", "name": "elsewhere", "units": 1}
    assert "config.json's model has no elsewhere" in refused(structures=[first, *rest, more])
    assert "do not fit" in refused(structures=[first | {"units": 1}, *rest])
    assert "of the 4 heads" in refused(structures=[first | {"units": 5}, *rest])
    assert "of another version" in refused(format=1)
    assert "NoSuchModel, is not in transformers" in refused(model="NoSuchModel")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load(tmp_path)


class Mine(BertForSequenceClassification):
    pass


def test_a_folder_that_nothing_would_load_is_not_written(tmp_path):
    def refused(model):
        with pytest.raises(ValueError, match="nothing would load it") as caught:
            save(model, tmp_path / "out")
        assert not list(tmp_path.iterdir())
        return str(caught.value)

    ragged = Mine(ZOO["bert"].build().config)
    save(ragged, tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    zero_(ragged, KINDS["ragged"])
    assert "a Mine is not a class of transformers" in refused(shrink(ragged)[0])
    model = ZOO["bert"].build()
    model.classifier = nn.Linear(32, 5)
    assert "classifier.weight is [5, 32] here and [2, 32] by the model's config" in refused(model)
    zero_(model, KINDS["ragged"])
    smaller, _ = shrink(model)
    assert "config.num_labels" in refused(smaller)
    smaller.config.num_labels = 5
    save(smaller, tmp_path / "out")
    assert load(tmp_path / "out").classifier.weight.shape == (5, 32)


def test_a_class_that_takes_more_than_a_config_has_a_reason(tmp_path):
    class Greedy(BertForSequenceClassification):
        def __init__(self, config, more):
            super().__init__(config)

    model = Greedy(ZOO["bert"].build().config, 1)
    zero_(model, lambda n, s: range(3) if s.unit == "neuron" else [])
    _, report = shrink(model)
    assert report.removed and "a Greedy is not made of its config alone" in report.reason
    with pytest.raises(ValueError, match="a Greedy is not a class of transformers"):
        save(model, tmp_path / "out")
    with pytest.raises(ValueError, match="give the other arguments of its constructor defaults"):
        find_tables(model)
