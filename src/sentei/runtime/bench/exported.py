"""The model as an ONNX file, for any number of sequences of any length, and its int8 twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from sentei.runtime.bench.contender import Model, silent


def exported(model: Model) -> Path:
    """The file, written when it is first asked for.

    Raises:
        ValueError: PyTorch cannot export the model; says why, and at once when asked again.
    """
    file, failure = model.folder / "model.onnx", model.folder / "export-failed.txt"
    if failure.is_file():
        raise ValueError(failure.read_text(encoding="utf-8"))
    if not file.is_file():
        try:
            _export(model, file)
        except Exception as error:  # of whatever class: it is the exporter's
            reason = str(error).strip().partition("\n")[0]
            failure.write_text(f"PyTorch does not export the model: {reason}", encoding="utf-8")
            raise ValueError(failure.read_text(encoding="utf-8")) from error
    return file


def quantised(model: Model) -> Path:
    """The file with weights in int8, and activations that are quantised as they come.

    Raises:
        ValueError: PyTorch cannot export the model.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, file = exported(model), model.folder / "model-int8.onnx"
    graph = onnx.load(source)
    # Shapes from before the export's own changes, which the quantiser would trip over.
    del graph.graph.value_info[:]
    with silent():
        quantize_dynamic(graph, file, weight_type=QuantType.QInt8)
    return file


def _export(model: Model, file: Path) -> None:
    """Every input has the batch first, and texts their tokens second."""
    shapes: dict[str, dict[int, Any]] = {}
    for name, value in model.sample.items():
        shapes[name] = {0: Dim.DYNAMIC}
        if value.dim() == 2:
            shapes[name][1] = Dim.DYNAMIC
    with silent():
        torch.onnx.export(
            model.module,
            (),
            file,
            kwargs=dict(model.sample),
            input_names=[*model.sample],
            output_names=[*model.outputs],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
