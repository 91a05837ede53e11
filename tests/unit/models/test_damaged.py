"""Damaged and hostile model folders: one sentence, in seconds, and nothing that they say is run."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig
from transformers import BertForSequenceClassification as Classifier

from helpers.damage import CONFIGS, TOKENIZERS, WEIGHTS, setting
from sentei import shrink
from sentei.models.contents import check_contents, weight_files
from sentei.models.folder import MANIFEST
from sentei.models.loading import Head, load_model, load_named, load_tokenizer, saved_labels
from sentei.models.pretrained import check_writable, stored_dtype
from sentei.run.verify import verify

CLASSES = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
HEAD = Head(AutoModelForSequenceClassification, CLASSES)


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """A classifier with its tokenizer."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_model, **CLASSES)
    Classifier(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def sentence(call):
    with pytest.raises(ValueError) as caught:
        call()
    said = str(caught.value)
    assert len(said) < 1500 and "\n" not in said and "trust_remote_code" not in said, said
    return said


@pytest.mark.parametrize("damage", [*CONFIGS, *WEIGHTS])
def test_every_way_to_load_refuses_it(damage, folder):
    (CONFIGS | WEIGHTS)[damage](folder)
    for said in (
        sentence(lambda: load_model(str(folder), HEAD)),
        sentence(lambda: shrink.load(folder)),
        sentence(lambda: load_named(folder)),
    ):
        assert str(folder) in said
    try:
        checks = verify(folder, None)
    except ValueError as error:
        assert str(folder) in str(error)
    else:
        assert not all(check.holds for check in checks)
        assert all(len(check.evidence) < 1500 for check in checks)
    assert {file.name for file in folder.parent.iterdir()} == {"model"}  # nothing was run


@pytest.mark.parametrize("damage", TOKENIZERS)
def test_a_damaged_tokenizer_is_refused(damage, folder):
    TOKENIZERS[damage](folder)
    assert str(folder) in sentence(lambda: load_tokenizer(str(folder)))


def test_a_tokenizer_that_panics_is_refused(folder):
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {},
    }
    file.write_text(json.dumps(data))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    assert "its tokenizer cannot be loaded" in sentence(lambda: load_tokenizer(str(folder)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "another version of Sentei"),
        ("[" * 10_000, "another version of Sentei"),
        ('{"format": 2, "sentei": "1", "model": "os", "structures": []}', "not in transformers"),
        ('{"format": 2, "sentei": "1", "model": "AutoModel", "structures": []}', "transformers"),
        (
            '{"format": 2, "sentei": "1", "model": "BertForSequenceClassification", "structures": '
            '[{"unit": "head", "name": "x", "units": -3}]}',
            "another version of Sentei",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(content, said, folder):
    (folder / MANIFEST).write_text(content)
    assert said in sentence(lambda: shrink.load(folder))
    assert said in sentence(lambda: load_model(str(folder), HEAD))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_before_training(value, folder):
    model = Classifier.from_pretrained(folder)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[2, 3] = value
    model.save_pretrained(folder)
    said = sentence(lambda: load_model(str(folder), HEAD, "teacher"))
    assert said.startswith("--teacher") and "layer.1.output.dense.weight holds NaN or inf" in said


def test_what_transformers_would_not_write_is_refused_before_training(folder):
    check_writable(shrink.load(folder), "--model x")
    setting(output_attentions=True)(folder)  # without eager attention it is loaded, not written
    model = shrink.load(folder)
    said = sentence(lambda: check_writable(model, "--model x"))
    assert said.startswith("--model x: its config could not be written again")


def test_classes_that_are_numbers_are_names(folder):
    setting(id2label={"0": 5, "1": 6})(folder)
    assert saved_labels(str(folder)) == ("5", "6")


def test_the_files_that_are_loaded_are_the_ones_counted(folder):
    model = Classifier.from_pretrained(folder)
    shutil.copyfile(folder / "model.safetensors", folder / "model.fp16.safetensors")
    assert weight_files(folder) == [folder / "model.safetensors"]
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="5KB")
    assert len(weight_files(folder)) > 2 and all(f.is_file() for f in weight_files(folder))
    check_contents(folder)
    [finite, loads] = verify(folder, None)
    assert finite.holds and loads.holds
    assert finite.evidence == f"{sum(p.numel() for p in model.parameters()):,} weights"


def test_a_link_to_the_weights_is_read(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    model, trained = load_model(str(folder), HEAD)
    assert trained and stored_dtype(folder, model.config) == torch.float32


def test_drawing_a_head_is_not_changed_by_looking_first(folder):
    """The number generator is where it was: runs with one seed are what they were."""
    three = {i: name for i, name in enumerate("abc")}
    config = BertConfig.from_pretrained(folder, id2label=three)
    torch.manual_seed(3)
    expected = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, ignore_mismatched_sizes=True
    )
    torch.manual_seed(3)
    labels = {"num_labels": 3, "id2label": three, "label2id": {v: k for k, v in three.items()}}
    model, trained = load_model(str(folder), Head(AutoModelForSequenceClassification, labels))
    assert not trained and torch.equal(model.classifier.weight, expected.classifier.weight)
