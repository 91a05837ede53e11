"""What a model costs: operations by formula, and milliseconds by measurement."""

from __future__ import annotations

import math
import statistics
import time

import torch
from transformers import PreTrainedModel

from sentei.families import StructureAt
from sentei.models.inputs import example
from sentei.records import Record

WARM_UP = 3
"""Forward passes of each model that do not count."""


class LatencyRecord(Record):
    """Median milliseconds of a forward pass, before and after, measured in turns."""

    before: float
    after: float
    batch: int
    length: int
    runs: int
    threads: int
    device: str

    @property
    def speedup(self) -> float:
        """How many times faster the smaller model is."""
        return self.before / self.after


def flops(model: PreTrainedModel, structures: tuple[StructureAt, ...], length: int) -> int:
    """Multiplications and additions of the blocks' matrix products for one sequence.

    Args:
        model: The model.
        structures: Its structures.
        length: Tokens of the sequence; of both sequences of an encoder-decoder.

    Returns:
        2 x length for each weight, and 4 x length² for each entry of all query heads (scores, and
        their product with the values; causal masks do not save any). Embeddings, heads of tasks
        and products with relative positions are not counted.
    """
    total = 0
    for structure in (at.structure for at in structures):
        for part in structure.weights:
            shape = model.get_parameter(part.parameter).shape
            other = math.prod(shape) // shape[part.dim]
            total += 2 * length * structure.units * part.width * other
        if structure.unit == "head":
            total += 4 * length**2 * structure.units * structure.weights[-1].width
    return total


@torch.no_grad()
def latency(
    before: PreTrainedModel,
    after: PreTrainedModel,
    *,
    batch: int = 1,
    length: int = 128,
    runs: int = 30,
) -> LatencyRecord:
    """Time two models in turns, so that a change of the machine's speed meets both.

    Args:
        before: The one.
        after: The other.
        batch: Sequences, or images, in a forward pass.
        length: Tokens of each; of no use for images.
        runs: Forward passes of each that count, after three that do not.

    Raises:
        ValueError: The models take no sequences of that length.
    """
    inputs = example(before, batch, length), example(after, batch, length)
    milliseconds: tuple[list[float], list[float]] = ([], [])
    training = before.training, after.training
    models = before.eval(), after.eval()
    for run in range(WARM_UP + runs):
        for model, arguments, times in zip(models, inputs, milliseconds, strict=True):
            start = time.perf_counter()
            model(**arguments)
            if before.device.type == "cuda":
                torch.cuda.synchronize()
            if run >= WARM_UP:
                times.append(1e3 * (time.perf_counter() - start))
    before.train(training[0]), after.train(training[1])
    return LatencyRecord(
        before=statistics.median(milliseconds[0]),
        after=statistics.median(milliseconds[1]),
        batch=batch,
        length=length,
        runs=runs,
        threads=torch.get_num_threads(),
        device=str(before.device),
    )
