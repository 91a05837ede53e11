"""Engines made ready one after the other; who cannot run the model is named, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sentei.runtime.bench.choice import Engine, split
from sentei.runtime.bench.contender import Contender, Model
from sentei.runtime.bench.measure import Tell
from sentei.runtime.bench.with_onnxruntime import open_onnxruntime
from sentei.runtime.bench.with_openvino import open_openvino
from sentei.runtime.bench.with_sentei import open_sentei
from sentei.runtime.bench.with_torch import open_shrunk, open_torch

_OPEN: Final[Mapping[str, Callable[[Model, Engine], Contender]]] = {
    "sentei": open_sentei,
    "torch": open_torch,
    "shrunk": open_shrunk,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


def open_engines(
    engines: Sequence[Engine], model: Model, tell: Tell = lambda text: None
) -> tuple[list[Contender], list[str]]:
    """The engines that can run a model, each having run it once, and why the others cannot."""
    usable, absent = split(engines)
    contenders, reasons = [], [*absent]
    for engine in usable:
        tell(f"Preparing {engine}")
        try:
            contender = _OPEN[engine.name](model, engine)
            contender.run(model.sample)
        except ValueError as error:
            reasons.append(f"{engine}: {error}")
        except Exception as error:  # of whatever class: it is the engine's
            if engine.name not in ("onnxruntime", "openvino"):
                raise
            reasons.append(f"{engine}: {str(error).strip().partition(chr(10))[0]}")
        else:
            contenders.append(contender)
    return contenders, reasons
