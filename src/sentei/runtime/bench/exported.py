"""The model as an ONNX file for the engines that read one, written once, and its int8 twin."""

from __future__ import annotations

from pathlib import Path

from sentei.export.graphs import MODEL, Graph
from sentei.export.to_onnx import write_int8, write_onnx
from sentei.runtime.bench.contender import Model


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
            write_onnx(Graph(MODEL, model.module, model.sample, model.outputs), file)
        except ValueError as error:
            failure.write_text(str(error), encoding="utf-8")
            raise
    return file


def quantised(model: Model) -> Path:
    """The file with weights in int8, and activations that are quantised as they come.

    Raises:
        ValueError: PyTorch cannot export the model.
    """
    file = model.folder / "model-int8.onnx"
    write_int8(exported(model), file)
    return file
