"""The card of a model's folder."""

import pytest
from huggingface_hub import ModelCard, ModelCardData

from sentei.models.card import (
    CARD,
    loading,
    mark_exported,
    mark_packed,
    mark_shrunk,
    mark_unpacked,
    read_card,
    write_card,
)
from sentei.models.folder import MANIFEST


def test_what_is_written_is_read(tmp_path):
    data = ModelCardData(library_name="transformers", tags=["sentei"])
    write_card(tmp_path, data, ["# A model", "What it is."])
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.to_dict() == data.to_dict()
    assert card.text.strip() == "# A model\n\nWhat it is."
    assert [path.name for path in tmp_path.iterdir()] == [CARD]
    assert read_card(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("shrunk", [False, True])
def test_a_shrunk_model_is_loaded_by_what_can(tmp_path, shrunk):
    (tmp_path / "tokenizer_config.json").touch()
    before = loading(tmp_path, "AutoModelForMaskedLM")
    assert "AutoModelForMaskedLM.from_pretrained" in before and "shrink" not in before
    assert "tokenizer = AutoTokenizer.from_pretrained" in before and "processor" not in before
    write_card(tmp_path, ModelCardData(tags="mine"), ["# A model", before, "## More", "More."])
    if shrunk:
        (tmp_path / MANIFEST).touch()
    mark_shrunk(tmp_path, "Half of it.")
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.tags == ["mine", "sentei", "shrunk"]
    assert ("shrink.load(folder)" in card.text) is shrunk
    assert ("AutoModelForMaskedLM" in card.text) is not shrunk
    assert card.text.count("## Loading") == card.text.count("## More") == 1
    assert card.text.rstrip().endswith("## More\n\nMore.\n\n## Shrunk\n\nHalf of it.")


def test_a_packed_model_says_what_it_needs_and_an_unpacked_one_no_more(tmp_path):
    (tmp_path / "tokenizer_config.json").touch()
    sections = ["# A model", loading(tmp_path), "## More", "More.\n```python\nmore\n```"]
    write_card(tmp_path, ModelCardData(tags=["mine", "sentei"]), sections)
    before = (tmp_path / CARD).read_text()
    mark_packed(tmp_path, "In int8.")
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.tags == ["mine", "sentei", "packed"]
    assert card.text.count("```python\nimport sentei  # reads") == 1 and "\nfrom trans" in card.text
    assert card.text.rstrip().endswith("## Packed\n\nIn int8.")
    mark_unpacked(tmp_path)
    assert (tmp_path / CARD).read_text() == before
    mark_packed(tmp_path, "In int8.")
    mark_shrunk(tmp_path, "Half of it.")
    text = (tmp_path / CARD).read_text()
    assert "## Packed" not in text and "import sentei" not in text and "## Shrunk" in text
    (tmp_path / CARD).unlink()
    mark_packed(tmp_path, "In int8.")
    mark_unpacked(tmp_path)
    assert not (tmp_path / CARD).exists()


def test_an_exported_model_names_its_files_and_is_packed_no_more(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    sections = ["# m", loading(tmp_path, "AutoModel"), "## Training\n\nLong."]
    write_card(tmp_path, ModelCardData(tags=["pruning"]), sections)
    mark_packed(tmp_path, "In int8.")
    mark_exported(tmp_path, "onnx", "fp32", ["model.onnx"])
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.tags == ["pruning", "sentei", "onnx"]
    assert "The model is in `model.onnx`, as onnx in fp32." in card.text
    assert "from_pretrained" not in card.text and "In int8." not in card.text
    assert card.text.endswith("## Training\n\nLong.\n")


def test_a_card_of_other_hands_keeps_its_words(tmp_path):
    (tmp_path / CARD).write_text("# Somebody's model\n\nIts words.\n")
    (tmp_path / MANIFEST).touch()
    mark_shrunk(tmp_path, "Half of it.")
    text = (tmp_path / CARD).read_text()
    assert "# Somebody's model\n\nIts words.\n\n## Shrunk\n\nHalf of it.\n" in text
    assert ModelCard.load(tmp_path / CARD).data.tags == ["sentei", "shrunk"]
