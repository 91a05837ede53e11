"""The CPU engine beside every other engine that is installed, over sparsity, pattern and precision.

Two models with trained weights: all-MiniLM-L6-v2 (the demo's), and, where ``--base`` names the
folder of all-mpnet-base-v2, a BERT of its size with its matrices. Each matrix is pruned by
magnitude to the same sparsity, single weights or blocks of 4x1; nothing is trained, because time
depends on which weights are there and not on what they learnt (``benchmarks.path`` measures trained
models).
Dense engines run the dense model. All take turns: in every round each runs every workload once.
With one thread the clock is processor time, which does not count waiting on a busy machine; with
several it is the wall's. Needs the extra ``bench``, and openvino and nncf to have these beside.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedModel

from benchmarks import machine
from benchmarks.measured import markdown
from sentei.models.demo import demo_model_path
from sentei.models.outputs import Inputs, outputs
from sentei.models.quiet import quiet_transformers
from sentei.runtime import cpu
from sentei.runtime.bench.choice import choose
from sentei.runtime.bench.contender import Contender, Model
from sentei.runtime.bench.machine import PACKAGES, versions
from sentei.runtime.bench.opening import open_engines
from sentei.runtime.inputs import pack
from sentei.runtime.program import Program
from sentei.runtime.reading import Reading, read

LENGTH = 128
BASELINE = "onnxruntime fp32"
DENSE_INT8 = ("onnxruntime int8", "openvino int8")
WARM_UP = 1


class Sparse(NamedTuple):
    """One way to run the engine."""

    precision: str
    sparsity: float
    pattern: str = "single"
    isa: cpu.Isa | None = None

    def __str__(self) -> str:
        isa = f" {self.isa}" if self.isa else ""
        pattern = " 4x1" if self.pattern == "4x1" else ""
        return f"sentei {self.precision}{isa} {100 * self.sparsity:g} %{pattern}"


SINGLE = [Sparse(p, s) for p in ("int8", "bf16", "fp32") for s in (0, 0.5, 0.65, 0.8, 0.9, 0.95)]
BLOCKS = [Sparse(p, s, "4x1") for p in ("int8", "bf16") for s in (0.5, 0.8, 0.9, 0.95)]
OLDER = [Sparse(p, 0.9, "single", "avx2") for p in ("int8", "fp32")]


@dataclass(frozen=True)
class Workload:
    """Batches that are run one after the other."""

    batch: int
    length: str
    passes: Sequence[Inputs]

    @property
    def sequences(self) -> int:
        return sum(len(one["input_ids"]) for one in self.passes)


@dataclass
class Timed:
    """An engine, how it is run, and what came out."""

    name: str
    run: Callable[[Inputs], Any]
    difference: float | None = None
    spent: dict[int, list[float]] = field(default_factory=dict)


def mini() -> PreTrainedModel:
    model: PreTrainedModel = AutoModel.from_pretrained(demo_model_path(), add_pooling_layer=False)
    model.eval()
    return model


@torch.no_grad()
def base(folder: Path) -> PreTrainedModel:
    """A BERT with the matrices of all-mpnet-base-v2, without the bias by distance."""
    source = AutoModel.from_pretrained(folder)
    config = BertConfig(vocab_size=source.config.vocab_size)
    model: PreTrainedModel = BertModel(config, add_pooling_layer=False)
    model.eval()
    own = model.state_dict()
    names = {
        "attention.attn.q": "attention.self.query",
        "attention.attn.k": "attention.self.key",
        "attention.attn.v": "attention.self.value",
        "attention.attn.o": "attention.output.dense",
        "attention.LayerNorm": "attention.output.LayerNorm",
    }
    for name, value in source.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        if name in own:
            own[name].copy_(value[: len(own[name])])
    return model


@torch.no_grad()
def pruned(model: PreTrainedModel, sparsity: float, pattern: str) -> PreTrainedModel:
    """The model without the smallest weights, or blocks of four outputs, of every matrix."""
    result = copy.deepcopy(model)
    for name, module in result.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layer." in name:
            weight = module.weight
            score = weight.abs()
            if pattern == "4x1":
                blocks = weight.view(-1, 4, weight.shape[1]).square().sum(1, keepdim=True)
                score = blocks.expand(-1, 4, -1).reshape(weight.shape)
            cut = round(sparsity * weight.numel())
            if cut:
                threshold = score.flatten().kthvalue(cut).values
                weight.mul_(score > threshold)
    return result


def ours(model: PreTrainedModel, forms: Sequence[Sparse], threads: int) -> list[Timed]:
    """The engine for every form that the CPU has."""
    result = []
    made: dict[tuple[float, str], PreTrainedModel] = {}
    for form in forms:
        if form.precision not in cpu.host(form.isa).precisions:
            continue
        key = (form.sparsity, form.pattern)
        if key not in made:
            made = {key: pruned(model, *key)}
        sparse = made[key]
        reading = read(sparse, "")
        program = Program(reading.encoder, form.precision, threads, form.isa)

        once = runner(
            program, sparse, replace(reading, encoder=replace(reading.encoder, layers=()))
        )
        result.append(Timed(str(form), once, difference(sparse, once)))
    return result


def runner(program: Program, model: PreTrainedModel, reading: Reading) -> Callable[[Inputs], Any]:
    def once(inputs: Inputs) -> Any:
        tokens, packed = pack(model, reading, inputs)
        out = np.zeros((tokens.batch * tokens.length, reading.encoder.hidden), np.float32)
        program.run(packed, out)
        return out

    return once


def difference(model: PreTrainedModel, once: Callable[[Inputs], Any]) -> float:
    """Of hidden states from torch fp32, relative in the L2 norm, on drawn tokens."""
    inputs = drawn(8)
    exact = outputs(model, inputs)["last_hidden_state"].double().flatten()
    apart = torch.from_numpy(once(inputs)).double().flatten() - exact
    return float(apart.norm() / exact.norm())


def dense(model: PreTrainedModel, texts: Sequence[Inputs], threads: int, folder: Path) -> Any:
    """Engines without sparsity, and why some are not there."""
    whole = Model(model, None, drawn(2), texts or [drawn(8)], threads, folder)
    engines = choose(("torch", "onnxruntime", "openvino"), ())
    contenders, absent = open_engines(engines, whole, print)

    def timed(one: Contender) -> Timed:
        apart = difference(
            model, lambda inputs: one.run(inputs)["last_hidden_state"].float().numpy()
        )
        return Timed(str(one.engine), one.run, apart)

    return [timed(one) for one in contenders], absent


def drawn(batch: int) -> Inputs:
    random = torch.Generator().manual_seed(batch)
    ids = torch.randint(1000, 20000, (batch, LENGTH), generator=random)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def lines_of(file: Path | None) -> list[Inputs]:
    """Batches of 8 real texts, padded to their longest, as they come."""
    if file is None:
        return []
    tokenizer = AutoTokenizer.from_pretrained(demo_model_path())
    rows = [line.partition("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()[1:65]]
    batches = (rows[at : at + 8] for at in range(0, len(rows), 8))
    result: list[Inputs] = []
    for some in batches:
        inputs = tokenizer(some, padding=True, truncation=True, max_length=512, return_tensors="pt")
        result.append({name: inputs[name] for name in ("input_ids", "attention_mask")})
    return result


def measure(
    engines: Sequence[Timed], workloads: Sequence[Workload], rounds: int, threads: int
) -> None:
    """Milliseconds a sequence of every engine on every workload, round by round."""
    clock = time.process_time if threads == 1 else time.perf_counter
    gc.disable()
    for turn in range(-WARM_UP, rounds):
        print(f"round {turn + 1} of {rounds}", flush=True)
        for number, workload in enumerate(workloads):
            for engine in engines:
                begin = clock()
                for inputs in workload.passes:
                    engine.run(inputs)
                spent = 1e3 * (clock() - begin) / workload.sequences
                if turn >= 0:
                    engine.spent.setdefault(number, []).append(spent)
        gc.collect()
    gc.enable()


def record(engines: Sequence[Timed], workloads: Sequence[Workload]) -> list[dict[str, Any]]:
    return [
        {
            "engine": engine.name,
            "batch": workload.batch,
            "length": workload.length,
            "milliseconds": [round(value, 4) for value in engine.spent[number]],
            "difference": engine.difference,
        }
        for number, workload in enumerate(workloads)
        for engine in engines
    ]


def table(name: str, measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """Medians: milliseconds a sequence, and ratios to the baseline and the best dense int8."""
    result = []
    places = dict.fromkeys((one["batch"], one["length"]) for one in measured)
    for batch, length in places:
        medians = {
            one["engine"]: statistics.median(one["milliseconds"])
            for one in measured
            if (one["batch"], one["length"]) == (batch, length)
        }
        apart = {one["engine"]: one["difference"] for one in measured}
        int8 = min((medians[one] for one in DENSE_INT8 if one in medians), default=None)
        rows = []
        for engine, value in medians.items():
            first = medians.get(BASELINE)
            rows.append(
                [
                    engine,
                    f"{value:.3g}",
                    "" if first is None else f"{first / value:.2f}x",
                    "" if int8 is None else f"{int8 / value:.2f}x",
                    "" if apart[engine] is None else f"{apart[engine]:.1e}",
                ]
            )
        what = f"{length} tokens" if length.isdigit() else "lengths of SST-2"
        head = ["engine", "ms", "ONNX Runtime fp32", "best dense int8", "differs"]
        result += ["", f"## {name}, batch {batch}, {what}", "", markdown(head, rows)]
    return result


def write(measurements: Sequence[Mapping[str, Any]]) -> None:
    text = ["# runtime", ""]
    text.append(
        "Milliseconds a sequence, medians of interleaved rounds; times as fast as ONNX Runtime in "
        "fp32 and as the fastest dense int8 engine on the same work. Differs: hidden states from "
        "torch fp32 of the same pruned model, relative in the L2 norm, on random tokens."
    )
    for one in measurements:
        threads = "1 thread, processor time" if one["threads"] == 1 else f"{one['threads']} threads"
        text += table(f"{one['model']}, {threads}", one["speeds"])
        text += ["", f"{one['rounds']} rounds.", *(f"Not there: {why}" for why in one["absent"])]
        text += ["", *(f"- {key}: {value}" for key, value in one["machine"].items())]
    (machine.RESULTS / "runtime.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="folder of all-mpnet-base-v2")
    parser.add_argument("--texts", type=Path, help="a file of texts, one a line, such as SST-2's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--few", action="store_true", help="of the engine only 90 %%")
    return parser.parse_args()


def main() -> None:
    arguments = options()
    quiet_transformers()
    torch.set_num_threads(arguments.threads)
    about = machine.facts() | versions(*PACKAGES)  # now: the code may change while this runs
    texts = lines_of(arguments.texts)
    workloads = [Workload(one, str(LENGTH), [drawn(one)]) for one in arguments.batch]
    workloads += [Workload(8, "data", texts)] if texts else []
    forms = [*SINGLE, *BLOCKS, *OLDER]
    if arguments.few:
        forms = [one for one in forms if one.sparsity in (0, 0.9)]
    file = machine.RESULTS / "runtime.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    models = {"all-MiniLM-L6-v2": mini}
    if arguments.base:
        models["BERT-base with all-mpnet-base-v2's matrices"] = lambda: base(arguments.base)
    for name, make in models.items():
        model = make()
        with tempfile.TemporaryDirectory() as folder:
            engines, absent = dense(model, texts, arguments.threads, Path(folder))
            engines += ours(model, forms, arguments.threads)
            measure(engines, workloads, arguments.rounds, arguments.threads)
        key = (name, arguments.threads)
        before = [one for one in before if (one["model"], one["threads"]) != key]
        before.append(
            {
                "model": name,
                "threads": arguments.threads,
                "rounds": arguments.rounds,
                "absent": absent,
                "speeds": record(engines, workloads),
                "machine": about,
            }
        )
        before.sort(key=lambda one: (one["model"], one["threads"]))
        file.write_text(json.dumps(before, indent=1) + "\n", encoding="utf-8")
        write(before)


if __name__ == "__main__":
    main()
