"""Engines timed in turns: in every round each runs every workload once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from sentei.export.agreement import compare
from sentei.models.outputs import outputs
from sentei.records import SpeedRecord
from sentei.runtime.bench.contender import Contender
from sentei.runtime.bench.workloads import Workload

WARM_UP: Final = 2
"""Rounds that do not count, after each engine has run each workload for its outputs."""

PAUSE: Final = 0.003
"""Seconds for the threads of the engine before to fall asleep."""

Tell = Callable[[str], None]


def measure(
    module: Any,
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    threads: int,
    tell: Tell = lambda text: None,
) -> tuple[SpeedRecord, ...]:
    """Time engines, and compare what they give with the model in torch fp32.

    Args:
        module: The model.
        contenders: The engines.
        workloads: What they run.
        rounds: How often each runs each.
        threads: Of torch; the other engines were opened with theirs.
        tell: Told what is going on.
    """
    times: dict[tuple[int, int], list[tuple[float, float]]] = {}
    with _threads(threads), _uncollected():
        tell("Comparing outputs")
        apart = {
            (w, c): difference(module, contender, workload)
            for w, workload in enumerate(workloads)
            for c, contender in enumerate(contenders)
        }
        for turn in range(-WARM_UP, rounds):
            tell("Warming up" if turn < 0 else f"Round {turn + 1} of {rounds}")
            for w, workload in enumerate(workloads):
                for c, contender in enumerate(contenders):
                    spent = _once(contender, workload, threads)
                    if turn >= 0:
                        times.setdefault((w, c), []).append(spent)
            gc.collect()
    return tuple(
        _record(contenders[c], workloads[w], times[w, c], apart[w, c]) for w, c in sorted(times)
    )


def difference(module: Any, contender: Contender, workload: Workload) -> tuple[float, float]:
    """Of an engine's outputs from torch fp32: relative in the L2 norm, and the largest.

    Infinite where an output is not finite. What stands for padding is not compared.
    """
    found = compare(lambda inputs: outputs(module, inputs), contender.run, workload.passes)
    return found.relative, found.most


def _once(contender: Contender, workload: Workload, threads: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    if threads > 1:
        time.sleep(PAUSE)
    clock, processor = time.perf_counter(), time.process_time()
    for inputs in workload.passes:
        contender.run(inputs)
    return time.perf_counter() - clock, time.process_time() - processor


def _record(
    contender: Contender,
    workload: Workload,
    times: Sequence[tuple[float, float]],
    apart: tuple[float, float],
) -> SpeedRecord:
    each = 1e3 / workload.sequences
    clock, processor = (np.asarray(column) * each for column in zip(*times, strict=True))
    low, middle, high = (float(value) for value in np.percentile(clock, (25, 50, 75)))
    return SpeedRecord(
        engine=contender.engine.name,
        precision=contender.engine.precision,
        batch=workload.batch,
        length=workload.length,
        clock=middle,
        low=low,
        high=high,
        processor=float(np.median(processor)),
        difference=apart[0],
        most=apart[1],
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Garbage waits until a round is over."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
