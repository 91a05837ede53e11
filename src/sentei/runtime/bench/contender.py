"""One engine with the model loaded: inputs in, outputs out; and what all of them are made from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sentei.runtime.bench.choice import Engine

Inputs = Mapping[str, Tensor]
Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Contender:
    """An engine at one precision that is ready to run."""

    engine: Engine
    run: Callable[[Inputs], Outputs]


@dataclass(frozen=True, eq=False)
class Model:
    """What contenders are made from.

    ``module`` is in fp32 and evaluation, ``shrunk`` what it is without idle heads and neurons,
    where it has some. ``sample`` and ``calibration`` are batches of its inputs, of two sequences or
    more. ``folder`` is for files that are of no use afterwards.
    """

    module: PreTrainedModel
    shrunk: PreTrainedModel | None
    sample: Inputs
    calibration: Sequence[Inputs]
    threads: int
    folder: Path

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it gives."""
        return tuple(run(self.module, self.sample))


@torch.inference_mode()
def run(module: Any, inputs: Inputs) -> dict[str, Tensor]:
    """The tensors that a model gives, without a loss."""
    output = module(**inputs)
    return {
        name: value
        for name, value in output.items()
        if isinstance(value, Tensor) and name != "loss"
    }


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on the terminal from those who export and quantise; errors are raised as ever."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
