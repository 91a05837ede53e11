"""What a run's model comes to on its way: dense, sparse, shrunk, packed, on the engine.

    python -m benchmarks.path RUN --title 'MODEL on DATA'

The dense model that a finished run started from, in PyTorch, in ONNX Runtime and in the fastest
dense int8 that is installed; the pruned one in PyTorch, and on Sentei's engine at every precision
that the CPU has; the same without its idle heads and neurons, where it has some; and the last of
these packed (values in bf16, embeddings in int8), which is then loaded and compiled. Metrics are
those of the run's evaluation data. Times are medians of rounds in which all take turns,
milliseconds a sequence: of evaluation texts in batches of 32 as they come, and of 8 x 128 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measured import markdown
from sentei.models.loading import locate_model
from sentei.models.quiet import quiet_transformers
from sentei.pack import pack
from sentei.records import SpeedRecord
from sentei.report.facts import Metric
from sentei.run.bench import Data, evaluation_data, load, ready, score, sparsity_of
from sentei.run.settings import Settings
from sentei.run.shrink import shrink_folder
from sentei.runtime.bench.choice import ENGINES, Engine
from sentei.runtime.bench.contender import Contender, Model
from sentei.runtime.bench.machine import PACKAGES, versions
from sentei.runtime.bench.measure import measure
from sentei.runtime.bench.opening import open_engines
from sentei.runtime.bench.workloads import DATA, Texts, Workload, workloads
from sentei.tasks import kinds

DENSE = [
    Engine(*one.split())
    for one in ("torch fp32", "onnxruntime fp32", "onnxruntime int8", "openvino int8")
]
SPARSE = [Engine("torch", "fp32"), *(Engine("sentei", one) for one in ENGINES["sentei"])]
BATCH, TEXTS, LENGTH = 32, 128, ("8", "128")
NAMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""How engines are written; Sentei's own is `the engine`."""


def tell(text: str) -> None:
    if not text.startswith("Round"):
        print(text, flush=True)


@dataclass(frozen=True)
class Stop:
    """A model, with the engines that it is timed on."""

    name: str
    folder: str
    data: Data
    model: Model
    contenders: Sequence[Contender]

    def bytes(self, engine: Engine) -> int | None:
        """Of the files that the engine reads; None where it has none of its own."""
        places = {"torch": (Path(self.folder), "*.safetensors")}
        places["sentei"] = places["torch"]
        file = "model-int8.onnx" if engine.precision == "int8" else "model.onnx"
        places["onnxruntime"] = (self.model.folder, f"{file}*")
        if engine.name not in places:
            return None
        folder, pattern = places[engine.name]
        return sum(one.stat().st_size for one in folder.glob(pattern))


def open_stop(
    name: str, folder: str, engines: Sequence[Engine], run: Settings, threads: int, files: Path
) -> Stop:
    """Load a model into engines; who cannot run it is named and left out."""
    module = load(folder)
    data = evaluation_data(folder, module, run)
    files.mkdir()
    model = ready(module, data.texts, threads, files)
    contenders, absent = open_engines(engines, model, tell)
    for sentence in absent:
        print(f"{name}, not timed: {sentence}", flush=True)
    return Stop(name, folder, data, model, contenders)


def sizes(module: Any, texts: Texts) -> list[Workload]:
    """Evaluation texts with their lengths, and one length."""
    order = texts.spread(TEXTS)
    cuts = range(0, TEXTS, BATCH)
    real = Workload(BATCH, DATA, tuple(texts.batch(order[at : at + BATCH]) for at in cuts))
    batch, length = LENGTH
    return [real, *workloads(module, texts, [int(batch)], [length])]


def timed(stops: Sequence[Stop], rounds: int, threads: int) -> list[dict[str, Any]]:
    """A line for each model on each engine."""
    every = [(stop, contender) for stop in stops for contender in stop.contenders]
    reference = stops[-1]
    work = sizes(reference.model.module, reference.data.texts)
    contenders = [contender for _, contender in every]
    module = reference.model.module
    speeds = measure(module, contenders, work, rounds=rounds, threads=threads, tell=tell)
    lines = []
    for number, (stop, contender) in enumerate(every):
        engine, model = contender.engine, stop.model.module
        lines.append(
            {
                "model": stop.name,
                "engine": engine.name,
                "precision": engine.precision,
                "bytes": stop.bytes(engine),
                "metrics": score(contender, model, stop.data, tell).metrics,
                "milliseconds": [
                    times(speeds[place * len(every) + number]) for place in range(len(work))
                ],
            }
        )
    return lines


def times(speed: SpeedRecord) -> dict[str, Any]:
    """Of one engine on one size."""
    numbers = ("clock", "low", "high", "processor")
    return {
        "batch": speed.batch,
        "length": speed.length,
        **{name: round(getattr(speed, name), 4) for name in numbers},
    }


def spent(line: dict[str, Any], place: int, threads: int) -> float:
    """Milliseconds that models are compared by: with one thread the processor's."""
    return float(line["milliseconds"][place]["processor" if threads == 1 else "clock"])


def best_int8(lines: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """The lines without the slower dense int8 ones."""
    dense = [one for one in lines if one["model"] == "dense" and one["precision"] == "int8"]
    slower = sorted(dense, key=lambda one: spent(one, 0, threads))[1:]
    return [one for one in lines if one not in slower]


def table(lines: list[dict[str, Any]], metric: str, threads: int) -> str:
    """Times, how many times as fast as the first line, metrics and bytes."""
    kind, rows = Metric(metric), []
    for line in lines:
        cells = []
        for place in range(len(line["milliseconds"])):
            this, first = (spent(one, place, threads) for one in (line, lines[0]))
            cells += [f"{this:.2f}", f"{first / this:.1f}x"]
        name = NAMES.get(line["engine"], "the engine")
        value = kind.text(line["metrics"][metric])
        size = "" if line["bytes"] is None else f"{line['bytes'] / 1e6:.1f}"
        rows.append([line["model"], f"{name} {line['precision']}", value, *cells, size])
    columns = [f"texts, batch {BATCH}: ms", "faster", "128 tokens, batch 8: ms", "faster", "MB"]
    return markdown(["", "engine", kind.label, *columns], rows)


def dense_folder(run: Path, settings: Settings, given: str | None) -> str:
    """The dense model: as given, the run's own, or what it was told to start from."""
    inside = run / "dense" / "model"
    return locate_model(given or (str(inside) if inside.is_dir() else settings.model))[0]


def smaller(model: Path, files: Path) -> dict[str, Path]:
    """The model without what is idle, where anything is, and packed; by the names of stops."""
    folders = {}
    shrunk = files / "shrunk model"
    found = shrink_folder(model, shrunk, stock=False, length=128, batch=None, texts=None, least=1)
    if found.removed:
        folders["shrunk"] = shrunk
    folders["packed"] = files / "packed model"
    pack(shrunk if found.removed else model, folders["packed"], embeddings="int8")
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--dense", help="folder of the dense model, if the run names none")
    parser.add_argument("--title", help="what the run pruned, on which data", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    quiet_transformers()
    kinds.known()  # settings name one of them
    settings = Settings.read(given.run / "run.yaml")
    folders = {
        "dense": (dense_folder(given.run, settings, given.dense), DENSE),
        "sparse": (str(given.run / "model"), SPARSE),
    }
    before = machine.facts()["load"]
    with tempfile.TemporaryDirectory() as files:
        for name, folder in smaller(given.run / "model", Path(files)).items():
            folders[name] = (str(folder), SPARSE)
        stops = [
            open_stop(name, folder, engines, settings, given.threads, Path(files, name))
            for name, (folder, engines) in folders.items()
        ]
        lines = best_int8(timed(stops, given.rounds, given.threads), given.threads)
    metric = stops[0].data.corpus.headline
    sparse = next(stop for stop in stops if stop.name == "sparse")
    sparsity, sparsity_all = sparsity_of(sparse.model.module)
    about = {**machine.facts(), **versions(*PACKAGES)}
    facts = {
        "title": given.title,
        "sparsity": sparsity,
        "sparsity_all": sparsity_all,
        "metric": metric,
        "threads": given.threads,
        "rounds": given.rounds,
        "lines": lines,
    }
    about |= {"threads": str(given.threads), "load before": before}
    machine.write("path", table(lines, metric, given.threads), facts, about)


if __name__ == "__main__":
    main()
