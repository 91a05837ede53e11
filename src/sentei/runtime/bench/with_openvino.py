"""OpenVINO: fp32, bf16, and static int8 that NNCF calibrates on real inputs."""

from __future__ import annotations

from sentei.export import engines
from sentei.export.to_openvino import calibrated, read_graph
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Model
from sentei.runtime.bench.exported import exported


def open_openvino(model: Model, engine: Engine) -> Contender:
    """The exported model, compiled for this CPU.

    Raises:
        ValueError: The model cannot be exported.
    """
    graph = read_graph(exported(model))
    if engine.precision == "int8":
        graph = calibrated(graph, model.calibration)
    # What stays in floats beside int8 has OpenVINO's own choice of them.
    precision = {"fp32": "f32", "bf16": "bf16"}.get(engine.precision)
    return Contender(engine, engines.open_openvino(graph, model.threads, precision))
