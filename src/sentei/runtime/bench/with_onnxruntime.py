"""ONNX Runtime: fp32, and dynamic int8."""

from __future__ import annotations

from sentei.export.engines import open_onnx
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Model
from sentei.runtime.bench.exported import exported, quantised


def open_onnxruntime(model: Model, engine: Engine) -> Contender:
    """A session on the exported model.

    Raises:
        ValueError: The model cannot be exported.
    """
    file = quantised(model) if engine.precision == "int8" else exported(model)
    return Contender(engine, open_onnx(file, model.threads))
