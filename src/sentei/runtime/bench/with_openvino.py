"""OpenVINO: fp32, bf16, and static int8 that NNCF calibrates on real inputs."""

from __future__ import annotations

import os
from typing import Any

import torch

from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Inputs, Model, Outputs, silent
from sentei.runtime.bench.exported import exported


def open_openvino(model: Model, engine: Engine) -> Contender:
    """The exported model, compiled for this CPU.

    Raises:
        ValueError: The model cannot be exported.
    """
    import openvino

    graph = openvino.Core().read_model(exported(model))
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": model.threads,
        "ENABLE_CPU_PINNING": False,
    }
    if engine.precision == "int8":
        graph = _calibrated(graph, model)  # what stays in floats has OpenVINO's own choice of them
    else:
        options["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[engine.precision]
    compiled = openvino.compile_model(graph, "CPU", options)
    taken = [port.any_name for port in compiled.inputs]
    request = compiled.create_infer_request()

    def run(inputs: Inputs) -> Outputs:
        request.infer({name: inputs[name].numpy() for name in taken}, share_inputs=True)
        return {
            name: torch.from_numpy(request.get_tensor(name).data.copy()) for name in model.outputs
        }

    return Contender(engine, run)


def _calibrated(graph: Any, model: Model) -> Any:
    os.environ.setdefault("NNCF_CI", "1")  # or NNCF tells Intel of its use
    with silent():
        import nncf

        names = [port.any_name for port in graph.inputs]
        batches = [{name: one[name].numpy() for name in names} for one in model.calibration]
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
