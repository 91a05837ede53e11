"""Attention scores of several families, against what the models return themselves."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from helpers.distilling import DISTILBERT, EVERYTHING, SIZES, batch
from sentei.distill import Distiller
from sentei.distill.recorder import AttentionRecorder

FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig(**SIZES)),
    "distilbert": (DistilBertForSequenceClassification, DISTILBERT),
    "mpnet": (MPNetForSequenceClassification, MPNetConfig(**SIZES)),
    "deberta": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    ),
    "vit": (ViTForImageClassification, ViTConfig(**SIZES, image_size=8, patch_size=4)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_hands_out_its_scores(family):
    """The scores recorded are those whose softmax the model itself returns as attentions."""
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    student, teacher = kind(copy.deepcopy(config)), kind(copy.deepcopy(config))
    inputs = batch((9, 6, 4, 2))
    if family == "vit":
        inputs = {"pixel_values": torch.randn(4, 3, 8, 8), "labels": inputs["labels"]}
    with Distiller(student, teacher, EVERYTHING) as distiller:
        student.train()(**inputs).loss.backward()
        assert set(distiller.terms) == {"labels", "logits", "hidden", "attention"}
        assert all(term > 0 for term in distiller.terms.values())
        with torch.no_grad(), AttentionRecorder("scores") as recorder:
            attentions = student.eval()(**inputs, output_attentions=True).attentions
    assert len(recorder.attention) == len(attentions) == 2
    for scores, attention in zip(recorder.attention, attentions, strict=True):
        torch.testing.assert_close(scores.softmax(-1), attention)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_hands_out_its_probabilities(family, training):
    """In training those after dropout, as the model itself returns them; gradients flow back."""
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    model = kind(copy.deepcopy(config)).train(training)
    model.set_attn_implementation("eager")
    inputs = batch((9, 6, 4, 2))
    if family == "vit":
        inputs = {"pixel_values": torch.randn(4, 3, 8, 8)}
    with AttentionRecorder("probabilities") as recorder:
        attentions = model(**inputs, output_attentions=True).attentions
    assert len(recorder.attention) == len(attentions) == 2
    for recorded, attention in zip(recorder.attention, attentions, strict=True):
        assert torch.equal(recorded, attention) and recorded.requires_grad
    dropped = any((recorded == 0).any() for recorded in recorder.attention)
    assert family == "vit" or not training or dropped
