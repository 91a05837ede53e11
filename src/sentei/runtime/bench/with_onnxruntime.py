"""ONNX Runtime: fp32, and dynamic int8."""

from __future__ import annotations

import torch

from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Inputs, Model, Outputs
from sentei.runtime.bench.exported import exported, quantised


def open_onnxruntime(model: Model, engine: Engine) -> Contender:
    """A session on the exported model.

    Raises:
        ValueError: The model cannot be exported.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = model.threads
    # Idle threads of one engine would otherwise take time from the engine whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    file = quantised(model) if engine.precision == "int8" else exported(model)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    taken = [one.name for one in session.get_inputs()]
    given = [*model.outputs]

    def run(inputs: Inputs) -> Outputs:
        arrays = session.run(given, {name: inputs[name].numpy() for name in taken})
        return {name: torch.from_numpy(a) for name, a in zip(given, arrays, strict=True)}

    return Contender(engine, run)
