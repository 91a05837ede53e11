"""Heads and neurons pruned and removed: what is lost. What is gained: ``benchmarks.latency``.

all-MiniLM-L6-v2 is fine-tuned on 8,000 training sentences of SST-2 ("start"). All others train that
model for as many steps again: dense, or while heads and neurons are pruned, the same share of every
layer. `sentei shrink` then removes them; what is measured is the model that was written, loaded
from its folder. The plan is protocols/structured.yaml; benchmarks/plans.py says how its runs are
made and kept.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks import machine, plans
from benchmarks.log import Line, Log
from benchmarks.measured import markdown, percent
from sentei import report as reports
from sentei import shrink
from sentei.compare.runs import Run
from sentei.files import write_text
from sentei.models.inputs import example
from sentei.models.loading import saved_labels
from sentei.records import REFERENCES
from sentei.run.evaluate import evaluate
from sentei.run.settings import Settings
from sentei.tasks.corpus import load_evaluation

SENTENCES = 8000
LENGTH = 128
"""Tokens of a sentence that is counted."""


def benchmark() -> plans.Benchmark:
    return plans.Benchmark(
        protocol="structured",
        log=Log("structured", ("method", "sparsity", "seed")),
        key=lambda run: {"method": run.recipe, "sparsity": run.sparsity, "seed": run.seed},
        line=_line,
        settings=_settings,
        write=_write,
    )


def _settings(name: str, task: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """The training sentences, chosen by lot, and the dev set."""
    train = work / "data" / "sst2" / "train.tsv"
    if not train.is_file():
        train.parent.mkdir(parents=True, exist_ok=True)
        head, *rows = (data / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()
        sentences = random.Random(0).sample(rows, SENTENCES)
        write_text(train, "\n".join([head, *sentences]) + "\n")
    return {**task, "train": str(train), "eval": str(data / "sst2" / "dev.tsv")}


def _line(run: Run, data: Path) -> Line:
    line = {
        **plans.settings_of(run),
        "dev": reports.read(run.folder).sparse["accuracy"],
        "test": _accuracy(shrink.load(run.folder / "model"), run.folder, data),
    }
    return line if run.recipe in REFERENCES else line | _shrunk(run.folder, data)


def _accuracy(model: PreTrainedModel, run: Path, data: Path) -> float:
    """On the labelled test sentences."""
    settings = Settings.read(run / "run.yaml")
    task = settings.task.model_copy(update={"eval": data / "sst2" / "test-labeled.tsv"})
    folder = str(run / "model")
    corpus = load_evaluation(task, saved_labels(folder), settings.training.seed)
    processor = corpus.load_processor(folder)
    features = corpus.evaluation_features(processor)
    return evaluate(model, processor, corpus, features, settings.training.batch_size)["accuracy"]


@torch.no_grad()
def _shrunk(run: Path, data: Path) -> Line:
    """Remove the heads and neurons, write what is left beside the run and measure that."""
    model = shrink.load(run / "model")
    smaller, report = shrink.shrink(model, length=LENGTH)
    shrink.save(smaller, run / "small", files=run / "model")
    smaller = shrink.load(run / "small")
    torch.manual_seed(0)
    inputs = example(model, 8, LENGTH)
    difference = (model(**inputs).logits - smaller(**inputs).logits).abs().max()
    return {
        "shrunk_test": _accuracy(smaller, run, data),
        "largest_difference_of_logits": float(difference),
        "heads": report.units("head"),
        "neurons": report.units("neuron"),
        "structures": [[s.unit, s.layer, s.before, s.after] for s in report.structures],
        "parameters": (report.parameters_before, report.parameters_after),
        "flops": (report.flops_before, report.flops_after),
        "stock": report.stock,
    }


def table(lines: list[Line]) -> str:
    """Accuracy before and after the heads and neurons are gone, and what is left."""
    head = ["model", "pruned", "dev", "test", "test, shrunk", "heads", "neurons", "weights"]
    rows = []
    for line in sorted(
        lines, key=lambda line: (line["method"] not in REFERENCES, line["sparsity"])
    ):
        row = [line["method"], f"{line['sparsity']:.0%}" if line["sparsity"] else ""]
        row += [percent(line["dev"]), percent(line["test"])]
        if "structures" in line:
            row += [percent(line["shrunk_test"]), f"{line['heads'][1]}", f"{line['neurons'][1]:,}"]
            row += [f"{line['parameters'][1] / 1e6:.2f} M", f"{line['flops'][1] / 1e9:.2f} G"]
        else:
            row += [""] * 5
        rows.append(row)
    text = [markdown([*head, "operations"], rows)]
    if before := next((line for line in lines if "structures" in line), None):
        names = ("heads", "neurons", "parameters", "flops")
        heads, neurons, parameters, flops = (before[name][0] for name in names)
        text += [
            "",
            f"Dense: {heads} heads, {neurons:,} neurons, {parameters / 1e6:.2f} M parameters, "
            f"{flops / 1e9:.2f} G operations.",
        ]
    return "\n".join(text)


def _write() -> str:
    tables = table(benchmark().log.lines)
    text = [
        "# structured",
        "",
        f"all-MiniLM-L6-v2 on {SENTENCES:,} training sentences of SST-2, accuracy in %, one "
        "seed: a sentence is 0.11 points of dev (872) and 0.05 of the labelled test set (1,821). "
        "Start: fine-tuned for 1 epoch, batch 16, learning rate 1e-4. All others train that model "
        "for as many steps again, dense or while heads and neurons are pruned, the same number in "
        "every layer. *Test, shrunk* is the model that `sentei shrink` wrote, loaded from its "
        f"folder. Operations: of the blocks' matrix products, one sentence of {LENGTH} tokens. "
        "`python -m benchmarks.structured --data ...`; machine, versions and commit of each run: "
        "its line in structured.jsonl.",
        "",
        tables,
    ]
    (machine.RESULTS / "structured.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return tables


if __name__ == "__main__":
    plans.make(benchmark(), plans.parser(__doc__).parse_args())
