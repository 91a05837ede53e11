"""Sparse models, to be packed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sentei.pack import pack


@torch.no_grad()
def prune_(model: PreTrainedModel, kept: float = 0.1) -> PreTrainedModel:
    """Zero weights of all matrices but embeddings, drawn with a seed; no negative zeros."""
    random = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "embed" not in name:
            weight.mul_(torch.rand(weight.shape, generator=random) < kept).add_(0.0)
    return model


def packed(model: PreTrainedModel, folder: Path, **options: str) -> Path:
    """The folder of a model, written and packed; as it is, if nothing else is asked for."""
    model.save_pretrained(folder / "plain")
    exact = {"values": "fp32", "embeddings": "fp32"}
    pack(folder / "plain", folder / "packed", **{**exact, **options})
    return folder / "packed"


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers, tied ones under each of their names."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def check_same(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Whether two models are of one class, and all their weights are of the same bits."""
    assert type(model) is type(other)
    here, there = weights(model), weights(other)
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        assert tensor.dtype == there[name].dtype and torch.equal(tensor, there[name]), name
