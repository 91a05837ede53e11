"""An engine in a model's place: what calls a model and reads its logits can call this."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from sentei.runtime.bench.contender import Contender


class AsModel(nn.Module):
    """Calls an engine as its model is called. It has no loss, whatever the labels: that is NaN.

    Args:
        contender: The engine.
        model: The model that it runs.
        names: The model's inputs; all others, such as labels, are left out.
    """

    def __init__(
        self, contender: Contender, model: PreTrainedModel, names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.contender = contender
        self.config = model.config
        self.names = names
        self.device = torch.device("cpu")

    def forward(self, **batch: Tensor) -> ModelOutput:
        """The engine's outputs in floats."""
        outputs = self.contender.run({name: batch[name] for name in self.names if name in batch})
        floats = {name: value.float() for name, value in outputs.items()}
        return ModelOutput(loss=torch.tensor(math.nan), **floats)
