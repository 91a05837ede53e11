"""Tiny encoders with heads, what they read, and how their outputs are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers.zoo import ZOO

PREFIXES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
}
IMAGES = {"vit": "ViT", "deit": "DeiT"}
HEADS = (
    "Model",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMaskedLM",
)
IMAGE_HEADS = ("Model", "ForImageClassification")
LENGTH = 9


def build(case: str, head: str = "Model", **settings: object) -> PreTrainedModel:
    """A model of random weights, in evaluation, with plain attention."""
    name = {**PREFIXES, **IMAGES}[case] + head
    specimen = ZOO[case]
    labels = 2 if head == "ForQuestionAnswering" else 3
    extra = {"num_labels": labels} | ({"embedding_size": 32} if case == "electra" else {})
    whole = specimen.settings | extra | settings
    model = dataclasses.replace(specimen, settings=whole).build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    model.set_attn_implementation("eager")
    return model.eval()


def masks(length: int = LENGTH) -> dict[str, Tensor]:
    """Masks of five sequences."""
    ones = torch.ones(5, length, dtype=torch.long)
    right, left, holes, empty = ones.clone(), ones.clone(), ones.clone(), ones.clone()
    for row in range(5):
        right[row, max(0, length - row) :] = 0
        left[row, :row] = 0
        holes[row, slice(row, None, 3)] = 0
    empty[1], empty[3] = 0, 0
    return {"none": ones, "right": right, "left": left, "holes": holes, "empty": empty}


MASKS = ("none", "right", "left", "holes", "empty")


def inputs(model: PreTrainedModel, mask: str = "right", length: int = LENGTH) -> dict[str, Tensor]:
    """Five sequences, padded as the mask says with the model's padding."""
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(5, 3, 8, 8, generator=generator)}
    attention_mask = masks(length)[mask]
    ids = torch.randint(5, 40, (5, length), generator=generator)
    if mask != "none":
        ids[attention_mask == 0] = model.config.pad_token_id
    return {"input_ids": ids, "attention_mask": attention_mask}


def seen(given: Mapping[str, Tensor], model: PreTrainedModel) -> Tensor | None:
    """Where outputs of tokens count: those of masked tokens are not the model's."""
    mask = given.get("attention_mask")
    if mask is None or model.main_input_name == "pixel_values":
        return None
    mask = mask.clone()
    mask[mask.sum(1) == 0] = 1
    return mask.bool()


@torch.no_grad()
def check(
    model: PreTrainedModel,
    run: object,
    given: Mapping[str, Tensor],
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> None:
    """That an engine gives what the model gives, of the same class, at tokens that are read."""
    expected, actual = model(**given), run(**given)
    assert type(actual) is type(expected)
    assert list(actual) == list(expected)
    counts = seen(given, model)
    for name, value in expected.items():
        other = actual[name]
        if isinstance(value, tuple):
            torch.testing.assert_close(other, value)
            continue
        assert other.dtype == value.dtype and other.shape == value.shape
        if counts is not None and value.shape[:2] == counts.shape:
            value, other = value[counts], other[counts]
        torch.testing.assert_close(other, value, rtol=rtol, atol=atol)
