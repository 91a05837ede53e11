"""The arithmetic of training: what the machine does well, or what was asked for."""

from __future__ import annotations

import warnings
from typing import Final, Literal

import torch
from torch import nn

from sentei.messages import SenteiWarning
from sentei.run.settings import Precision, StateDtype
from sentei.tensors import multiplies_bf16

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision(wish: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to train with; ``auto`` is that of 16 bits which the hardware has.

    Raises:
        ValueError: fp16 without an accelerator.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            return "bf16" if multiplies_bf16(torch.device("cuda")) else "fp16"
        return "bf16" if multiplies_bf16(torch.device("cpu")) else "fp32"
    if wish == "fp16" and not torch.cuda.is_available():
        raise ValueError("--precision fp16 needs a GPU: use auto, bf16 or fp32")
    return wish


def written_dtype(wish: Precision, stored: torch.dtype) -> torch.dtype:
    """The precision to write a model in; ``auto`` is that of its files, but at most float32."""
    if wish == "auto":
        return stored if stored in _DTYPES.values() else torch.float32
    return _DTYPES[wish]


def state_dtype(wish: StateDtype) -> torch.dtype:
    """The precision of what scores remember."""
    return _DTYPES[wish]


@torch.no_grad()
def round_(model: nn.Module, dtype: torch.dtype) -> None:
    """Round a float32 model to what it is to be written in, in which it has the same zeros.

    What would become zero stays the smallest number. A model with numbers beyond the range stays as
    it is, with a warning.
    """
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight.to(dtype)).all():
            warnings.warn(
                f"{name} has numbers beyond the range of {dtype}: the model is written in float32",
                SenteiWarning,
                stacklevel=2,
            )
            return
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for weight in model.parameters():
        lost = (weight.to(dtype) == 0) & (weight != 0)
        weight[lost] = torch.sign(weight[lost]) * smallest
    model.to(dtype)
