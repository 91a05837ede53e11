"""The model in PyTorch: as it is, in bf16, and without what is idle."""

from __future__ import annotations

import copy
from typing import Any

import torch

from sentei.models.outputs import Inputs, Outputs, outputs
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Model


def open_torch(model: Model, engine: Engine) -> Contender:
    """Dense, whatever its zeros."""
    return _contender(engine, model.module)


def open_shrunk(model: Model, engine: Engine) -> Contender:
    """Without idle heads and neurons.

    Raises:
        ValueError: There are none.
    """
    if model.shrunk is None:
        raise ValueError("no attention head and no neuron is wholly zero, so it is the same model")
    return _contender(engine, model.shrunk)


def _contender(engine: Engine, module: Any) -> Contender:
    if engine.precision == "fp32":
        return Contender(engine, lambda inputs: outputs(module, inputs))
    half = copy.deepcopy(module).to(torch.bfloat16)

    def in_halves(inputs: Inputs) -> Outputs:
        return outputs(half, {name: _narrow(value) for name, value in inputs.items()})

    return Contender(engine, in_halves)


def _narrow(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.bfloat16) if value.is_floating_point() else value
