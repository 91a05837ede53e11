"""A folder for another engine, checked on real inputs before it is there."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedModel

from sentei._version import VERSION
from sentei.export.agreement import Agreement, compare
from sentei.export.engines import Run, open_onnx, open_openvino
from sentei.export.graphs import (
    DECODER,
    ENCODED,
    ENCODER,
    MODEL,
    Graph,
    complete,
    decoder_inputs,
    graphs,
    uncached,
)
from sentei.export.target import TOLERANCES, Target
from sentei.export.to_onnx import Unexportable, reason, write_int8, write_onnx
from sentei.export.to_openvino import calibrated, read_graph, write_openvino
from sentei.files import expanded, replacing
from sentei.models.card import mark_exported
from sentei.models.folder import check_free, copy_around
from sentei.models.outputs import Inputs, Outputs, outputs
from sentei.records import Record

REPORT: Final = "export.json"
"""The file that says what was exported, and how near its outputs are."""


class ExportReport(Record):
    """What was exported: ``precision`` fp32 or int8, and the bytes of each file.

    ``inputs`` says what the outputs were compared on, ``agreement`` how far they are from the
    model's; a relative difference above ``tolerance`` would have been refused. ``versions`` are of
    the packages that took part.
    """

    sentei: str
    created: str
    model: str
    format: str
    precision: str
    files: dict[str, int]
    inputs: str
    tolerance: float
    agreement: Agreement
    versions: dict[str, str]


def export(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    to: str,
    inputs: Sequence[Inputs],
    int8: bool = False,
    calibration: Sequence[Inputs] = (),
    tolerance: float | None = None,
    files: str | Path | None = None,
    source: str = "the given inputs",
) -> ExportReport:
    """Write a model for another engine, and compare what the two give; both in fp32 on the CPU.

    A new folder appears whole or not at all, and not where outputs differ beyond the tolerance.
    Any number of sequences of any length goes in; keys and values are not kept between calls.

    Args:
        model: The model, sparse, shrunk or neither.
        folder: A new or empty folder.
        to: ``onnx`` or ``openvino``.
        inputs: Batches of real inputs; their names are those of the graph. A model that writes
            texts from texts also reads ``decoder_input_ids``.
        int8: Whether products are in int8: in ONNX with activations that are quantised as they
            come, by ONNX Runtime; in OpenVINO with static ones, which NNCF calibrates.
        calibration: Batches for that, best of one sequence each; of none given, ``inputs``.
        tolerance: Relative difference of all outputs in the L2 norm that is still taken; None is
            0.001, and 0.3 in int8.
        files: A model's folder, from which tokenizer, model card and all other files but weights
            and config are copied.
        source: What the inputs are, for the report.

    Returns:
        What was written, and how near it is.

    Raises:
        ValueError: A package is missing, the folder is not empty, the model is not in fp32 on the
            CPU or cannot be exported, or the outputs differ beyond the tolerance.
    """
    target, folder = Target(to, int8), expanded(folder)
    target.check()
    check_free(folder)
    _check_model(model)
    batches = [complete(model, batch) for batch in inputs]
    if not batches:
        raise ValueError("inputs: there are none; give a batch that the model can be tried with")
    samples = [complete(model, batch) for batch in calibration] or batches
    most = TOLERANCES[target.precision] if tolerance is None else tolerance
    with _evaluating(model), uncached(model), replacing(folder.resolve()) as unfinished:
        unfinished.mkdir(parents=True)
        run = _whole(_write_all(model, batches[0], samples, target, unfinished))
        with _explaining(target):
            agreement = compare(lambda batch: outputs(model, batch), run, batches)
        _check_near(agreement, most, target)
        facts = _written(model, target, unfinished)
        report = ExportReport(**facts, inputs=source, tolerance=most, agreement=agreement)
        _surround(model, unfinished, files, report)
    return report


def _written(model: PreTrainedModel, target: Target, folder: Path) -> dict[str, Any]:
    """What a report says of the files that are there."""
    return {
        "sentei": VERSION,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "model": type(model).__name__,
        "format": target.format,
        "precision": target.precision,
        "files": {one.name: one.stat().st_size for one in sorted(folder.iterdir())},
        "versions": target.versions(),
    }


def _check_model(model: PreTrainedModel) -> None:
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"a {type(model).__name__} cannot be exported: give the Transformers model itself, "
            "without a wrapper around it"
        )
    kinds = {(one.device.type, one.dtype) for one in model.parameters() if one.is_floating_point()}
    for device, dtype in kinds - {("cpu", torch.float32)}:
        raise ValueError(
            f"model: it has weights in {str(dtype).removeprefix('torch.')} on {device}, and is "
            "exported in fp32 from the CPU: model.float().cpu()"
        )


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _samples(
    graph: Graph, model: PreTrainedModel, batches: Sequence[Inputs]
) -> Callable[[], list[Inputs]]:
    """What a graph reads of each batch of the model's inputs, computed where it is asked for."""

    def of(batch: Inputs) -> Inputs:
        if graph.name != DECODER:
            return batch
        states = outputs(model.get_encoder(), {name: batch[name] for name in ENCODED})
        return decoder_inputs(states["last_hidden_state"], batch)

    return lambda: [of(batch) for batch in batches]


def _write_all(
    model: PreTrainedModel,
    batch: Inputs,
    samples: Sequence[Inputs],
    target: Target,
    folder: Path,
) -> dict[str, Run]:
    """Write the graphs of a model, and open what was written."""

    def write() -> dict[str, Run]:
        return {
            graph.name: _write(graph, target, folder, _samples(graph, model, samples))
            for graph in graphs(model, batch)
        }

    try:
        return write()
    except Unexportable:
        if model.config._attn_implementation != "sdpa":
            raise
    # Of T5 PyTorch exports plain attention alone, which gives the same.
    model.set_attn_implementation("eager")
    try:
        return write()
    finally:
        model.set_attn_implementation("sdpa")


def _write(graph: Graph, target: Target, folder: Path, samples: Callable[[], list[Inputs]]) -> Run:
    """Write one graph, and open what was written."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        plain = target.format == "onnx" and not target.int8
        source = (folder if plain else Path(aside)) / f"{graph.name}.onnx"
        write_onnx(graph, source)
        with _explaining(target):
            if plain:
                return open_onnx(source, threads)
            if target.format == "onnx":
                file = folder / source.name
                write_int8(source, file)
                return open_onnx(file, threads)
            read = read_graph(source)
            file = folder / f"openvino_{graph.name}.xml"
            write_openvino(calibrated(read, samples()) if target.int8 else read, file)
            return open_openvino(file, threads, None if target.int8 else "f32")


@contextmanager
def _explaining(target: Target) -> Iterator[None]:
    """Around what an engine or a quantiser does with a graph that PyTorch has exported.

    Raises:
        ValueError: It cannot; says why.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of whatever class: it is the engine's
        who = "ONNX Runtime" if target.format == "onnx" else "OpenVINO"
        raise ValueError(f"{who} does not take the exported model: {reason(error)}") from error


def _whole(runs: Mapping[str, Run]) -> Run:
    """The model of its files."""
    if MODEL in runs:
        return runs[MODEL]

    def run(inputs: Inputs) -> Outputs:
        texts = {name: inputs[name] for name in ENCODED}
        states = runs[ENCODER](texts)["last_hidden_state"]
        logits = runs[DECODER](decoder_inputs(states, inputs))["logits"]
        return {"logits": logits, "encoder_last_hidden_state": states}

    return run


def _check_near(agreement: Agreement, most: float, target: Target) -> None:
    if agreement.relative <= most:
        return
    same = f", {agreement.same} of {agreement.answers} answers the same" * bool(agreement.answers)
    static = "nncf" in target.packages
    fix = "More or other inputs to calibrate on may help; a" if static else "A"
    raise ValueError(
        f"--to {target.format}{' --int8' * target.int8}: its outputs differ from the model's by "
        f"{agreement.relative:.2g} of their size ({agreement.examples} examples{same}), and "
        f"{most:g} is taken at most; nothing was written. {fix} larger --tolerance takes it as it "
        "is"
    )


def _surround(
    model: PreTrainedModel, folder: Path, files: str | Path | None, report: ExportReport
) -> None:
    """Put beside the graphs what their readers need: config, tokenizer, card, report."""
    config = copy.deepcopy(model.config)  # its use_cache is off: the graphs keep none
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config  # of the model's own files
    config.save_pretrained(folder)
    if model.can_generate():
        generation = copy.deepcopy(model.generation_config)
        generation.use_cache = False
        generation.save_pretrained(folder)
    if files is not None:
        copy_around(expanded(files), folder)
        mark_exported(folder, report.format, report.precision, list(report.files))
    text = report.model_dump_json(indent=2)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
