"""A model's weights as what an engine is made of: arrays, or packed matrices."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from sentei.pack.tensor import PackedTensor
from sentei.pack.values import to_float32
from sentei.runtime.encoder import Array, Unsupported
from sentei.runtime.nonzeros import Nonzeros
from sentei.untrusted import reading

_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)


def to_array(parameter: Tensor, name: str) -> Array:
    """A tensor of the CPU as a float32 array.

    Raises:
        Unsupported: It lies elsewhere, is of another type, or is not finite.
    """
    if parameter.device.type != "cpu":
        raise Unsupported(f"{name} is on {parameter.device}: the engine runs on the CPU")
    if parameter.dtype not in _DTYPES:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise Unsupported(f"{name} is {parameter.dtype}: the engine takes {kinds}")
    array: Array = parameter.detach().to(torch.float32).contiguous().numpy()
    _check_finite(array, name)
    return array


class PackedWeight:
    """A matrix out of a packed file, which is never there dense.

    Args:
        packed: The matrix.
        name: Of the weight in the model.
    """

    def __init__(self, packed: PackedTensor, name: str) -> None:
        self._packed, self._name = packed, name

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)"""
        return self._packed.shape

    def nonzeros(self) -> Nonzeros:
        """What is not zero.

        Raises:
            Unsupported: A weight is not finite.
            ValueError: It is damaged.
        """
        outputs, inputs = self.shape
        with reading(self._name):
            places, numbers = self._packed.nonzero()
        values = to_float32(numbers, self._packed.dtype)
        _check_finite(values, self._name)
        return Nonzeros.at((outputs, inputs), places, values)


def _check_finite(array: Array, name: str) -> None:
    # A sum shows what is not finite in one pass; a sum of huge numbers may overflow as well.
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(array.sum())
    if suspicious and not np.isfinite(array).all():
        raise Unsupported(
            f"{name} holds NaN or infinity: the training has diverged; go back to a checkpoint"
        )
