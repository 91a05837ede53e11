"""How much faster a model is without some of its heads and neurons, in PyTorch and ONNX Runtime.

all-MiniLM-L6-v2 with a head for two classes, dense and shrunk: every layer without the same number
of heads and neurons, as `--pattern head+neuron --set budget=uniform --set budget.multiple=2` leaves
it. Time depends on shapes alone, so the last units are taken out and nothing is trained. All run in
turns: in every round each engine runs each model once. Processor time is beside the clock's,
because it does not count the waiting on a busy machine; with several threads it adds them up. Needs
the extra ``export``. ``--threads`` that were measured before are replaced.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from benchmarks import machine
from sentei import shrink
from sentei.models.demo import demo_model_path
from sentei.models.inputs import example
from sentei.models.quiet import quiet_transformers
from sentei.models.structures import divide, family_of
from sentei.parts.budget import Uniform
from sentei.parts.progress import Progress

LENGTH, BATCHES, WARMUP = 128, (1, 8), 5
MODELS: dict[str, tuple[float, tuple[str, ...]]] = {
    "dense": (0.0, ()),
    "half of heads and neurons": (0.5, ("head", "neuron")),
    "80 % of heads and neurons": (0.8, ("head", "neuron")),
    "80 % of neurons": (0.8, ("neuron",)),
}
"""By name: the share taken out, and of what."""

Run = Callable[[], Any]


@torch.no_grad()
def pruned(sparsity: float, kinds: tuple[str, ...]) -> PreTrainedModel:
    """The pretrained model with the last units of some kinds at zero."""
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        demo_model_path(), num_labels=2
    )
    end = Progress(step=1, total=1, sparsity=sparsity, final=sparsity, reached=sparsity, ramp=1.0)
    for structure in (at.structure for at in divide(model, family_of(model))):
        if structure.unit in kinds:
            out = structure.weights[-1]
            idle = Uniform(multiple=2).split([structure.units], end, {})[0].count
            first = out.offset + (structure.units - idle) * out.width
            weight = model.get_parameter(out.parameter)
            weight.narrow(out.dim, first, idle * out.width).zero_()
    model.eval()
    return model


def export(model: PreTrainedModel, inputs: dict[str, Tensor], file: Path) -> None:
    """Write an ONNX file that takes any number of sentences."""
    torch.onnx.export(
        model,
        (),
        file,
        kwargs=inputs,
        input_names=[*inputs],
        output_names=["logits"],
        dynamic_shapes={name: {0: "batch"} for name in inputs},
        dynamo=True,
        verbose=False,
    )


@dataclass
class Shrunk:
    """A model without heads and neurons, its ONNX file, and what logits it should give."""

    model: PreTrainedModel
    file: Path
    inputs: dict[str, Tensor]
    logits: Tensor
    facts: dict[str, Any]

    def runs(self, batch: int, threads: int) -> dict[str, Run]:
        """The engines with some sentences to read."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads of one session would otherwise take time from the engine whose turn it is.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            self.file, options, providers=["CPUExecutionProvider"]
        )
        some = {name: value[:batch] for name, value in self.inputs.items()}
        arrays = {one.name: some[one.name].numpy() for one in session.get_inputs()}

        def in_torch() -> Any:
            with torch.inference_mode():
                return self.model(**some).logits

        def in_onnxruntime() -> Any:
            return torch.from_numpy(session.run(["logits"], arrays)[0])

        return {"PyTorch": in_torch, "ONNX Runtime": in_onnxruntime}


def prepare(name: str, folder: Path) -> Shrunk:
    model = pruned(*MODELS[name])
    smaller, report = shrink.shrink(model, length=LENGTH)
    torch.manual_seed(0)
    inputs = example(model, max(BATCHES), LENGTH)
    file = folder / f"{name}.onnx"
    export(smaller, inputs, file)
    facts = {
        "heads": report.units("head")[1],
        "neurons": report.units("neuron")[1],
        "parameters": report.parameters_after,
        "flops": report.flops_after,
        "stock": report.stock,
    }
    with torch.inference_mode():
        return Shrunk(smaller, file, inputs, model(**inputs).logits, facts)


def measure(models: dict[str, Shrunk], threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    runs: dict[tuple[str, int, str], Run] = {}
    for batch in BATCHES:
        for name, shrunk in models.items():
            for engine, run in shrunk.runs(batch, threads).items():
                difference = float((run() - shrunk.logits[:batch]).abs().max())
                if not difference < 1e-3:
                    raise ValueError(f"{name}, {engine}: logits are {difference:g} off")
                runs[engine, batch, name] = run
    spent_on: dict[tuple[str, int, str], list[tuple[float, float]]] = {key: [] for key in runs}
    before = machine.facts()["load"]
    for turn in range(WARMUP + rounds):
        for key, run in runs.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - clock, time.process_time() - processor
            if turn >= WARMUP:
                spent_on[key].append((1e3 * spent[0], 1e3 * spent[1]))
    versions = machine.versions("transformers", "onnxruntime", "onnx", "onnxscript")
    return {
        "threads": threads,
        "models": {name: shrunk.facts for name, shrunk in models.items()},
        "milliseconds": [
            {
                **dict(zip(("engine", "batch", "model"), key, strict=True)),
                "clock": [round(clock, 3) for clock, _ in times],
                "processor": [round(processor, 3) for _, processor in times],
            }
            for key, times in spent_on.items()
        ],
        "machine": machine.facts() | versions | {"load before": before},
    }


def table(measurement: dict[str, Any]) -> list[str]:
    medians = {
        (one["engine"], one["batch"], one["model"]): [
            statistics.median(one[kind]) for kind in ("clock", "processor")
        ]
        for one in measurement["milliseconds"]
    }
    lines = [
        "| engine | batch | model | ms | faster | processor ms | less |",
        "|---|---|---|---|---|---|---|",
    ]
    for engine, batch, name in sorted(medians, key=lambda key: (key[0] != "PyTorch", key[1])):
        cells = []
        for dense, this in zip(
            medians[engine, batch, "dense"], medians[engine, batch, name], strict=True
        ):
            cells += [f"{this:.2f}", "" if name == "dense" else f"{dense / this:.2f}x"]
        lines.append(f"| {engine} | {batch} | {name} | " + " | ".join(cells) + " |")
    return lines


def write(measured: list[dict[str, Any]]) -> str:
    text = [
        "# latency",
        "",
        f"all-MiniLM-L6-v2 as a classifier, fp32, {LENGTH} tokens, dense and without heads and "
        "neurons, the same number in every layer. Medians of interleaved rounds; *faster* and "
        "*less* are ratios of medians to the dense model's in the same engine. Operations: of the "
        "blocks' matrix products, one sentence. Stock: plain `from_pretrained` loads it.",
        "",
        "| model | heads | neurons | parameters | operations | fewer | stock |",
        "|---|---|---|---|---|---|---|",
    ]
    models = measured[-1]["models"]
    for name, one in models.items():
        fewer = models["dense"]["flops"] / one["flops"]
        text.append(
            f"| {name} | {one['heads']} | {one['neurons']:,} | {one['parameters'] / 1e6:.2f} M | "
            f"{one['flops'] / 1e9:.2f} G | {'' if fewer == 1 else f'{fewer:.2f}x'} | "
            f"{'yes' if one['stock'] else 'no'} |"
        )
    for measurement in measured:
        rounds = len(measurement["milliseconds"][0]["clock"])
        text += ["", f"## {measurement['threads']} thread{'s' * (measurement['threads'] > 1)}", ""]
        text += [f"{rounds} rounds.", "", *table(measurement), ""]
        text += [
            f"- {key}: {value}" for key, value in measurement["machine"].items() if key != "threads"
        ]
    whole = "\n".join(text) + "\n"
    (machine.RESULTS / "latency.md").write_text(whole, encoding="utf-8")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    quiet_transformers()
    file = machine.RESULTS / "latency.json"
    measured = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        models = {name: prepare(name, Path(folder)) for name in MODELS}
        for threads in dict.fromkeys(arguments.threads):
            measured = [one for one in measured if one["threads"] != threads]
            measured.append(measure(models, threads, arguments.rounds))
            measured.sort(key=lambda one: int(one["threads"]))
            file.write_text(json.dumps(measured) + "\n", encoding="utf-8")
            print(write(measured), flush=True)


if __name__ == "__main__":
    main()
