"""The tables of the engine's speed, made of benchmarks/results/runtime*.json."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.measured import markdown

MODELS = {"mini": "all-MiniLM-L6-v2", "base": "BERT-base with all-mpnet-base-v2's matrices"}
BASELINE = "onnxruntime fp32"
NAMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
WORKLOADS = {
    (1, "128"): "1 x 128",
    (8, "128"): "8 x 128",
    (32, "128"): "32 x 128",
    (8, "data"): "8 sentences",
}
KERNELS = ("product", "attention", "norm", "convert")


def _read(name: str) -> Any:
    return json.loads((machine.RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _medians(model: str, threads: int) -> dict[tuple[int, str], dict[str, float]]:
    """Milliseconds a sequence, by batch and length, by engine."""
    found = next(
        one for one in _read("runtime") if (one["model"], one["threads"]) == (model, threads)
    )
    times: dict[tuple[int, str], dict[str, float]] = {}
    for one in found["speeds"]:
        place = times.setdefault((one["batch"], one["length"]), {})
        place[one["engine"]] = median(one["milliseconds"])
    return times


def _title(engine: str) -> str:
    name, _, rest = engine.partition(" ")
    if name in NAMES:
        return f"{NAMES[name]} {rest}"
    precision, *words = rest.split(" ")
    return f"**the engine, {precision}**, {' '.join(words)}"


def engine(model: str, threads: str = "1") -> str:
    """Milliseconds a sequence, and how many times as fast as ONNX Runtime in fp32."""
    times = _medians(MODELS[model], int(threads))
    places = [place for place in WORKLOADS if place in times]
    rows = []
    for name in next(iter(times.values())):
        cells = []
        for place in places:
            value = times[place][name]
            cells.append(f"{value:.3g} ({times[place][BASELINE] / value:.1f}x)")
        rows.append([_title(name), *cells])
    return markdown(["ms (times as fast)", *(WORKLOADS[place] for place in places)], rows)


def break_even(threads: str = "1") -> str:
    """The engine against the fastest dense engine of the same precision, by sparsity."""
    sparsities = ("0", "50", "65", "80", "90", "95")
    rows = []
    for model in MODELS.values():
        times = _medians(model, int(threads))[8, "128"]
        for precision in ("int8", "bf16", "fp32"):
            dense = [
                value
                for name, value in times.items()
                if not name.startswith("sentei") and name.endswith(f" {precision}")
            ]
            for pattern, words in (("", "single weights"), (" 4x1", "4x1 blocks")):
                names = [f"sentei {precision} {at} %{pattern}" for at in sparsities]
                if any(name in times for name in names[1:]):
                    cells = [
                        f"{min(dense) / times[name]:.2f}" if name in times else "" for name in names
                    ]
                    rows.append([model, precision, words, *cells])
    return markdown(["8 x 128", "", "", *(f"{at} %" for at in sparsities)], rows)


def kernels(hidden: str = "768") -> str:
    """Kernels of one size: microseconds, and the share of what the core could do at most."""
    rows = []
    for density, kept in ((0.1, "90 % sparse"), (1.0, "dense")):
        for one in _read("runtime_kernels")["kernels"]:
            if (one["hidden"], one["density"]) == (hidden, density):
                if one["precision"] != "fp32" and one["kernel"].startswith(KERNELS):
                    cells = [f"{one['microseconds']:.0f}", f"{100 * one['share_of_roof']:.0f} %"]
                    rows.append([kept, f"`{one['kernel']}`", *cells])
    return markdown(["", "kernel", "us", "of the roof"], rows)
