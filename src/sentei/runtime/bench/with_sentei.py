"""Sentei's own engine, which leaves the zeros out."""

from __future__ import annotations

from sentei import runtime
from sentei.models.outputs import outputs
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Model


def open_sentei(model: Model, engine: Engine) -> Contender:
    """The engine; at precision ``auto`` what it comes to is said by the contender.

    Raises:
        ValueError: This CPU or the engine cannot run the model at this precision.
    """
    compiled = runtime.compile(model.module, precision=engine.precision, threads=model.threads)
    chosen = engine._replace(precision=compiled.precision or engine.precision)
    return Contender(chosen, lambda inputs: outputs(compiled, inputs))
