"""What a model gives: its tensors by name, without a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]
Outputs = Mapping[str, Tensor]


@torch.inference_mode()
def outputs(model: Any, inputs: Inputs) -> dict[str, Tensor]:
    """The tensors that a model gives for some inputs; a loss and a cache are left out.

    Args:
        model: A model of transformers, or what is called as one.
        inputs: By name.
    """
    output = model(**inputs)
    return {
        name: value
        for name, value in output.items()
        if isinstance(value, Tensor) and name != "loss"
    }
