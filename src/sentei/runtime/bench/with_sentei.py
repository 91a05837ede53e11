"""Sentei's own engine, which leaves the zeros out."""

from __future__ import annotations

from sentei import runtime
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Model, run


def open_sentei(model: Model, engine: Engine) -> Contender:
    """The engine.

    Raises:
        ValueError: This CPU or the engine cannot run the model at this precision.
    """
    make = getattr(runtime, "compile", None)
    if make is None:
        raise ValueError("this version has no engine")
    compiled = make(model.module, precision=engine.precision, threads=model.threads)
    return Contender(engine, lambda inputs: run(compiled, inputs))
