"""What `sentei export` writes of a run: bytes, how near the outputs are, metric, and speed.

    python -m benchmarks.export RUN --title 'MODEL on DATA'

Beside it stands what is not offered: for ONNX the static int8 that NNCF makes too. Answers and
differences are over 256 evaluation examples, metrics over all. Times are medians of rounds in which
all take turns, milliseconds a sequence: of evaluation texts in batches of 32 as they come, and of 8
x 128 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from benchmarks import machine
from benchmarks.measured import markdown
from benchmarks.path import NAMES, sizes, spent, tell, times
from sentei.export.agreement import compare
from sentei.export.engines import Run, open_onnx, open_openvino
from sentei.export.silence import load_openvino, silent
from sentei.export.write import export
from sentei.models.outputs import Inputs, outputs
from sentei.models.quiet import quiet_transformers
from sentei.report.facts import Metric
from sentei.run.bench import evaluation_data, load, score, sparsity_of
from sentei.run.export import Trial, trial_of
from sentei.run.settings import Settings
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender
from sentei.runtime.bench.machine import PACKAGES, versions
from sentei.runtime.bench.measure import measure
from sentei.tasks import kinds

ENDS = (".onnx", ".xml")
"""Of files that an engine is given."""

Written = tuple[Engine, Run, int]
"""An engine, what runs its files, and their bytes."""


def written(module: PreTrainedModel, trial: Trial, threads: int, files: Path) -> Iterator[Written]:
    """The model in each format at each precision, opened."""

    def write(form: str, int8: bool = False) -> tuple[Path, int]:
        folder = files / f"{form}{'-int8' * int8}"
        tell(f"Writing {folder.name}")
        given: dict[str, Any] = {"inputs": trial.batches, "calibration": trial.ones}
        report = export(module, folder, to=form, int8=int8, tolerance=10.0, **given)
        return folder / next(one for one in report.files if one.endswith(ENDS)), sum(
            report.files.values()
        )

    plain, size = write("onnx")
    yield Engine("onnxruntime", "fp32"), open_onnx(plain, threads), size
    file, size = write("onnx", int8=True)
    yield Engine("onnxruntime", "int8"), open_onnx(file, threads), size
    static = files / "static.onnx"
    static_onnx(plain, static, trial.ones)
    yield Engine("onnxruntime", "int8 static"), open_onnx(static, threads), static.stat().st_size
    file, size = write("openvino")
    yield Engine("openvino", "fp32"), open_openvino(file, threads, "f32"), size
    yield Engine("openvino", "bf16"), open_openvino(file, threads, "bf16"), size
    file, size = write("openvino", int8=True)
    yield Engine("openvino", "int8 static"), open_openvino(file, threads), size


def static_onnx(source: Path, file: Path, batches: Sequence[Inputs]) -> None:
    """The ONNX file with scales of activations that NNCF measures."""
    load_openvino()
    tell("Writing onnx, static")
    with silent():
        import nncf
        import onnx

        graph = onnx.load(source)
        del graph.graph.value_info[:]
        names = [one.name for one in graph.graph.input]
        arrays = [{name: one[name].numpy() for name in names} for one in batches]
        static = nncf.quantize(
            graph,
            nncf.Dataset(arrays),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(arrays),
        )
        onnx.save(static, file)


def table(lines: list[dict[str, Any]], metric: str, threads: int) -> str:
    """A row for each file."""
    kind, rows = Metric(metric), []
    for line in lines:
        found = line["agreement"]
        rows.append(
            [
                f"{NAMES[line['engine']]} {line['precision']}",
                f"{line['bytes'] / 1e6:.1f}",
                f"{found['relative']:.1g}",
                f"{found['same']} of {found['answers']}",
                kind.text(line["metrics"][metric]),
                *(f"{spent(line, place, threads):.2f}" for place in range(2)),
            ]
        )
    columns = ["MB", "difference", "same answers", kind.label]
    return markdown(["", *columns, "texts, batch 32: ms", "128 tokens, batch 8: ms"], rows)


def lines_of(
    run: Path, settings: Settings, threads: int, rounds: int
) -> tuple[list[dict[str, Any]], str, PreTrainedModel]:
    """What was measured of each file, the headline metric, and the model."""
    folder = str(run / "model")
    module = load(folder)
    data = evaluation_data(folder, module, settings)
    trial = trial_of(module, folder, settings)
    whole: Run = lambda inputs: outputs(module, inputs)  # noqa: E731
    with tempfile.TemporaryDirectory() as files:
        size = sum(one.stat().st_size for one in Path(folder).glob("*.safetensors"))
        every: list[Written] = [
            (Engine("torch", "fp32"), whole, size),
            *written(module, trial, threads, Path(files)),
        ]
        contenders = [Contender(engine, once) for engine, once, _ in every]
        work = sizes(module, data.texts)
        speeds = measure(module, contenders, work, rounds=rounds, threads=threads, tell=tell)
        lines = [
            {
                "engine": engine.name,
                "precision": engine.precision,
                "bytes": bytes_,
                "agreement": compare(whole, once, trial.batches).model_dump(),
                "metrics": score(Contender(engine, once), module, data, tell).metrics,
                "milliseconds": [
                    times(speeds[place * len(every) + number]) for place in range(len(work))
                ],
            }
            for number, (engine, once, bytes_) in enumerate(every)
        ]
    return lines, data.corpus.headline, module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--title", help="what the run pruned, on which data", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    quiet_transformers()
    kinds.known()  # settings name one of them
    before = machine.facts()["load"]
    settings = Settings.read(given.run / "run.yaml")
    lines, metric, module = lines_of(given.run, settings, given.threads, given.rounds)
    sparsity, sparsity_all = sparsity_of(module)
    facts = {
        "title": given.title,
        "sparsity": sparsity,
        "sparsity_all": sparsity_all,
        "metric": metric,
        "threads": given.threads,
        "rounds": given.rounds,
        "lines": lines,
    }
    about = {**machine.facts(), **versions(*PACKAGES)}
    about |= {"threads": str(given.threads), "load before": before, "title": given.title}
    machine.write("export", table(lines, metric, given.threads), facts, about)


if __name__ == "__main__":
    main()
