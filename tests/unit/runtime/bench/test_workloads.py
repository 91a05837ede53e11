"""Batches of one length without padding, or of the lengths of real texts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from sentei.runtime.bench.workloads import Texts, workloads

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LENGTHS = [5, 2, 9, 3, 7]


@pytest.fixture
def model():
    return BertModel(
        BertConfig(vocab_size=50, intermediate_size=8, max_position_embeddings=20, **SIZES)
    )


@pytest.fixture
def texts():
    rows = [{"input_ids": [*range(10 * i, 10 * i + n)]} for i, n in enumerate(LENGTHS)]

    def collate(rows):
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
        padded = pad_sequence(ids, batch_first=True)
        return {"input_ids": padded, "attention_mask": mask, "labels": torch.zeros(len(ids))}

    return Texts(rows, collate, ("input_ids", "attention_mask"))


def test_without_texts_inputs_are_drawn_and_fill_what_the_model_takes(model):
    [one, eight] = workloads(model, None, [1, 8], [])
    assert (one.batch, one.length, eight.length) == (1, "20", "20")
    assert eight.passes[0]["input_ids"].shape == (8, 20)
    assert eight.record.tokens == eight.record.padded == 160


def test_one_length_is_texts_end_to_end(model, texts):
    [workload] = workloads(model, texts, [2], ["6"])
    [inputs] = workload.passes
    assert inputs["input_ids"].tolist() == [[0, 1, 2, 3, 4, 10], [20, 21, 22, 23, 24, 25]]
    assert inputs["attention_mask"].all() and "labels" not in inputs


def test_the_lengths_of_texts_are_those_of_the_data_in_its_order(model, texts):
    [workload] = workloads(model, texts, [4], ["data"])
    assert len(workload.passes) == 8 and workload.sequences == 32
    lengths = [n for one in workload.passes for n in one["attention_mask"].sum(1).tolist()]
    assert sorted(set(lengths)) == sorted(LENGTHS)
    assert lengths == [LENGTHS[i * 5 // 32] for i in range(32)]
    assert workload.record.tokens == sum(lengths) < workload.record.padded


def test_sorted_texts_need_less_padding(model, texts):
    data, tidy = workloads(model, texts, [16], ["data", "sorted"])
    assert data.record.tokens == tidy.record.tokens
    lengths = [n for one in tidy.passes for n in one["attention_mask"].sum(1).tolist()]
    assert lengths == sorted(lengths) and tidy.record.padded <= data.record.padded


@pytest.mark.parametrize(
    ("length", "says"),
    [
        ("21", "the model takes at most 20 tokens"),
        ("0", "--length 0: give a number of tokens, data or sorted"),
        ("long", "--length long"),
        ("data", "--length data: there are no texts"),
    ],
)
def test_lengths_that_cannot_be(model, length, says):
    with pytest.raises(ValueError, match=says):
        workloads(model, None, [1], [length])


def test_images_have_one_size():
    model = ViTModel(ViTConfig(image_size=8, patch_size=4, intermediate_size=8, **SIZES))
    [workload] = workloads(model, None, [3], [])
    assert workload.length == "image" and workload.sequences == 3
    assert workload.record.tokens == 0
    with pytest.raises(ValueError, match="images have one size"):
        workloads(model, None, [1], ["128"])
