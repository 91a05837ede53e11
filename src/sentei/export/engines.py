"""Files in the engines that read them: inputs in, outputs out, by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sentei.export.signal_stack import signal_stack_kept
from sentei.export.silence import load_openvino
from sentei.models.outputs import Inputs, Outputs

Run = Callable[[Inputs], Outputs]


def open_onnx(file: Path, threads: int) -> Run:
    """An ONNX file in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads of one engine would otherwise take time from the engine whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    taken = [one.name for one in session.get_inputs()]
    given = [one.name for one in session.get_outputs()]

    def run(inputs: Inputs) -> Outputs:
        arrays = session.run(given, {name: inputs[name].numpy() for name in taken})
        return {name: torch.from_numpy(a) for name, a in zip(given, arrays, strict=True)}

    return run


def open_openvino(graph: Any, threads: int, precision: str | None = None) -> Run:
    """A model of OpenVINO's, compiled for this CPU.

    Args:
        graph: The model, or the file that it is in.
        threads: Of a forward pass.
        precision: In which floats are computed, ``f32`` or ``bf16``; None leaves it to OpenVINO.
    """
    openvino = load_openvino()
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = precision
    with signal_stack_kept():
        compiled = openvino.compile_model(graph, "CPU", options)
    taken = [port.any_name for port in compiled.inputs]
    # Where a graph ends in two operations that do nothing, its output has the names of both.
    given = [name for port in compiled.outputs for name in port.names]
    request = compiled.create_infer_request()

    def run(inputs: Inputs) -> Outputs:
        request.infer({name: inputs[name].numpy() for name in taken}, share_inputs=True)
        return {name: torch.from_numpy(request.get_tensor(name).data.copy()) for name in given}

    return run
