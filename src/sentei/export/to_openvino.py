"""An ONNX file as OpenVINO's own format, and its static int8 twin, which NNCF calibrates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sentei.export.signal_stack import signal_stack_kept
from sentei.export.silence import load_openvino, silent
from sentei.models.outputs import Inputs


def read_graph(file: Path) -> Any:
    """OpenVINO's model of an ONNX file, or of its own."""
    return load_openvino().Core().read_model(file)


def write_openvino(graph: Any, file: Path) -> None:
    """Write a model of OpenVINO's: ``file``, an ``.xml``, and the weights as a ``.bin`` beside it.

    In fp32 bit by bit: OpenVINO's own default would round every weight to fp16.
    """
    load_openvino().save_model(graph, file, compress_to_fp16=False)


def calibrated(graph: Any, batches: Iterable[Inputs]) -> Any:
    """The model with int8 products, whose activations are scaled by what real inputs give.

    Args:
        graph: A model of OpenVINO's.
        batches: The inputs.
    """
    load_openvino()
    with silent(), signal_stack_kept():
        import nncf

        names = [port.any_name for port in graph.inputs]
        arrays = [{name: one[name].numpy() for name in names} for one in batches]
        return nncf.quantize(
            graph,
            nncf.Dataset(arrays),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(arrays),
        )
