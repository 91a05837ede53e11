"""One engine with the model loaded: inputs in, outputs out; and what all of them are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedModel

from sentei.models.outputs import Inputs, Outputs, outputs
from sentei.runtime.bench.choice import Engine


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
        return tuple(outputs(self.module, self.sample))
