"""How much faster a model is without some of its heads and neurons, in PyTorch and ONNX Runtime.

all-MiniLM-L6-v2 with a head for two classes, dense and shrunk: every layer without the same number
of heads and neurons, as `--pattern head+neuron --set budget=uniform --set budget.multiple=2` leaves
it. Time depends on shapes alone, so the last units are taken out and nothing is trained. All run in
turns: in every round each engine runs each model once. Processor time is beside the clock's,
because it does not count the waiting on a busy machine; with several threads it adds them up. Needs
the extra ``bench``. ``--threads`` that were measured before are replaced.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from benchmarks import machine
from sentei import shrink
from sentei.cli.app import quiet_transformers
from sentei.hf.demo import demo_model_path
from sentei.parts.budget import Uniform
from sentei.parts.part import Moment
from sentei.shrink.cost import example
from sentei.shrink.surgery import divide, family_of

LENGTH, BATCHES, WARMUP = 128, (1, 8), 5
MODELS = {
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
    end = Moment(step=1, total=1, sparsity=sparsity, final=sparsity, reached=sparsity, ramp=1.0)
    for structure in (division.structure for division in divide(model, family_of(model))):
        if structure.kind in kinds:
            out = structure.weights[-1]
            idle = Uniform(multiple=2).split([structure.units], end, {})[0].count
            first = out.offset + (structure.units - idle) * out.width
            weight = model.get_parameter(out.parameter)
            weight.narrow(out.dim, first, idle * out.width).zero_()
    return model.eval()


def session(model: PreTrainedModel, inputs: dict[str, Tensor], file: Path) -> Any:
    """ONNX Runtime's, for any number of sentences."""
    import onnxruntime

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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads of one session would otherwise take time from the engine whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def engines(name: str, folder: Path) -> tuple[dict[tuple[str, int, str], Run], dict[str, Any]]:
    """Every engine and batch of a model, checked against each other; and what the model is."""
    model = pruned(*MODELS[name])
    smaller, report = shrink.shrink(model, length=LENGTH)
    torch.manual_seed(0)
    inputs = example(model, max(BATCHES), LENGTH)
    with torch.no_grad():
        sparse = model(**inputs).logits
    loaded = session(smaller, inputs, folder / f"{name}.onnx")
    runs: dict[tuple[str, int, str], Run] = {}
    for batch in BATCHES:
        some = {key: value[:batch] for key, value in inputs.items()}
        arrays = {one.name: some[one.name].numpy() for one in loaded.get_inputs()}

        @torch.inference_mode()
        def in_torch(some: dict[str, Tensor] = some) -> Any:
            return smaller(**some).logits

        def in_onnxruntime(arrays: dict[str, Any] = arrays) -> Any:
            return torch.from_numpy(loaded.run(["logits"], arrays)[0])

        for engine, run in (("PyTorch", in_torch), ("ONNX Runtime", in_onnxruntime)):
            difference = float((run() - sparse[:batch]).abs().max())
            if not difference < 1e-3:
                raise ValueError(f"{name}, {engine}: logits are {difference:g} off")
            runs[engine, batch, name] = run
    return runs, {
        "heads": report.units("head")[1],
        "neurons": report.units("neuron")[1],
        "parameters": report.parameters_after,
        "flops": report.flops_after,
        "stock": report.stock,
    }


def measure(threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    runs: dict[tuple[str, int, str], Run] = {}
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            found, models[name] = engines(name, Path(folder))
            runs |= found
    taken: dict[tuple[str, int, str], list[tuple[float, float]]] = {key: [] for key in runs}
    before = machine.facts()["load"]
    for turn in range(WARMUP + rounds):
        for key, run in runs.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - clock, time.process_time() - processor
            if turn >= WARMUP:
                taken[key].append((1e3 * spent[0], 1e3 * spent[1]))
    versions = machine.versions("transformers", "onnxruntime", "onnx", "onnxscript")
    return {
        "threads": threads,
        "models": models,
        "milliseconds": [
            {
                "engine": engine,
                "batch": batch,
                "model": name,
                "clock": clock,
                "processor": processor,
            }
            for (engine, batch, name), times in taken.items()
            for clock, processor in [zip(*times, strict=True)]
        ],
        "machine": machine.facts() | versions | {"load before": before},
    }


def table(found: dict[str, Any]) -> list[str]:
    medians = {
        (one["engine"], one["batch"], one["model"]): [
            statistics.median(one[kind]) for kind in ("clock", "processor")
        ]
        for one in found["milliseconds"]
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
    for found in measured:
        rounds = len(found["milliseconds"][0]["clock"])
        text += ["", f"## {found['threads']} thread{'s' * (found['threads'] > 1)}", ""]
        text += [f"{rounds} rounds.", "", *table(found), ""]
        text += [f"- {key}: {value}" for key, value in found["machine"].items() if key != "threads"]
    whole = "\n".join(text) + "\n"
    (machine.RESULTS / "latency.md").write_text(whole, encoding="utf-8")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    quiet_transformers()
    file = machine.RESULTS / "latency.json"
    measured = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    measured = [one for one in measured if one["threads"] != arguments.threads]
    measured.append(measure(arguments.threads, arguments.rounds))
    measured.sort(key=lambda one: int(one["threads"]))
    file.write_text(json.dumps(measured) + "\n", encoding="utf-8")
    print(write(measured))


if __name__ == "__main__":
    main()
