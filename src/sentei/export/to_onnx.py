"""A graph as an ONNX file, for any number of sequences of any length, and its int8 twin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import Dim

from sentei.export.graphs import Graph
from sentei.export.silence import silent
from sentei.messages import cut

ONE_FILE: Final = 1_500_000_000
"""Bytes of weights that still go into the file itself: it can hold two gigabytes."""


class Unexportable(ValueError):
    """A graph that PyTorch cannot export."""


def write_onnx(graph: Graph, file: Path) -> None:
    """Write a graph as ONNX; the weights of a large one lie beside it, in ``FILE.data``.

    Every input has the batch first, and all but images their tokens second; both are free.

    Args:
        graph: What to write.
        file: Where to.

    Raises:
        Unexportable: PyTorch cannot export it; says why.
        OSError: The disk is full, or fails.
    """
    shapes: dict[str, dict[int, Any]] = {}
    for name in graph.sample:
        shapes[name] = {0: Dim.DYNAMIC}
        if name != "pixel_values":
            shapes[name][1] = Dim.DYNAMIC
    weights = sum(one.nbytes for one in graph.module.parameters())
    try:
        with silent():
            torch.onnx.export(
                graph.module,
                (),
                file,
                kwargs=dict(graph.sample),
                input_names=[*graph.sample],
                output_names=[*graph.outputs],
                dynamic_shapes=shapes,
                external_data=weights > ONE_FILE,
                dynamo=True,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # of whatever class: it is the exporter's
        raise Unexportable(f"PyTorch does not export the model: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The first line of what went wrong at first: exporters wrap it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return cut(re.sub(r"\x1b\[[0-9;]*m", "", line), 300)


def write_int8(source: Path, file: Path) -> None:
    """Write an ONNX file with weights in int8, and activations that are quantised as they come.

    ONNX Runtime's own quantiser does it, which needs no data.

    Args:
        source: What :func:`write_onnx` wrote.
        file: Where to.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    # Shapes from before the export's own changes, which the quantiser would trip over.
    del graph.graph.value_info[:]
    with silent():
        quantize_dynamic(graph, file, weight_type=QuantType.QInt8)
