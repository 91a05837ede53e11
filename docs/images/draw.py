"""The pictures of the README and the front page, drawn as SVG.

python docs/images/draw.py

``lost.svg`` is drawn from benchmarks/results/quality_first.jsonl, ``path.svg`` from path.json
there. The same data give the same bytes, and a test holds the files to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

from sentei.report.facts import Metric, percent

HERE = Path(__file__).parent
NOW = re.compile(r"-(rebuilt|push)$")
"""What ends the names of recipes in the results that are a method's default today."""
PUBLISHED = ("knowledge_aware",)
"""Methods whose default has not run on all the tasks."""
RESULTS = HERE.parents[1] / "benchmarks" / "results"

TASKS = ("stsb", "sst2", "mrpc", "banking77")
SPARSITY = 0.9
INK, SOFT, LINE, PAPER = "#1f2937", "#6b7280", "#cbd5e1", "#ffffff"
COLOURS = {"observe": "#0f766e", "decide": "#b45309", "apply": "#4338ca"}

_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    f"fill:{INK};font-size:15px}}"
    ".code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    f".soft{{fill:{SOFT};font-size:13px}}.head{{font-size:17px;font-weight:600}}"
)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of words."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, line: str = "none") -> str:
    """A rectangle."""
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {size} rx="6" fill="{fill}" stroke="{line}"/>'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a head."""
    place = f'x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}"'
    return f'<line {place} stroke="{SOFT}" stroke-width="1.5" marker-end="url(#head)"/>'


def picture(width: int, height: int, title: str, shapes: Iterator[str]) -> str:
    """An SVG file, on paper of its own so that it reads on any page."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">'
    )
    marker = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path d="M0,0L8,4L0,8z" fill="{SOFT}"/></marker>'
    )
    parts = [
        head,
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{marker}</defs>",
        box(0, 0, width, height, PAPER),
        *shapes,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# --------------------------------------------------------------------------------------- the flow

_VERBS = (
    ("observe", "what is each weight worth?", ("score", "penalties"), "around the step"),
    (
        "decide",
        "how sparse, and where?",
        ("schedule", "budget", "pattern"),
        "the exact cut",
    ),
    ("apply", "zeros into the weights", ("mask",), "project, or latent × mask"),
)


def flow() -> str:
    """Where Sentei acts in a training step, and which part of a recipe sets what."""
    return picture(960, 415, "Observe, decide, apply: one training step", _flow())


def _flow() -> Iterator[str]:
    yield text(30, 38, "your loop", "soft")
    for x, width, words in ((30, 190, "loss.backward()"), (385, 190, "optimizer.step()")):
        yield box(x, 50, width, 38, "#f1f5f9", LINE)
        yield text(x + width / 2, 74, words, "code", "middle")
    yield box(740, 50, 190, 38, "#f1f5f9", LINE)
    yield text(835, 74, "a plain, sparse model", "", "middle")
    yield arrow(222, 69, 381, 69)
    yield arrow(577, 69, 736, 69)
    yield text(302, 60, "gradients", "soft", "middle")
    yield text(657, 60, "moved weights", "soft", "middle")

    yield text(222, 130, "Sentei, at the optimizer’s own hooks", "soft")
    for number, (verb, question, parts, note) in enumerate(_VERBS):
        x = 30 + 310 * number
        yield box(x, 142, 280, 116, "#ffffff", COLOURS[verb])
        yield box(x, 142, 280, 34, COLOURS[verb])
        yield f'<text x="{x + 14}" y="165" class="head" style="fill:#fff">{verb}</text>'
        yield text(x + 14, 200, question)
        yield text(x + 14, 246, note, "soft")
        place = x + 14.0
        for part in parts:
            width = 8.3 * len(part) + 14
            yield box(place, 208, width, 23, "#f1f5f9")
            yield text(place + 7, 224, part, "code soft")
            place += width + 7
        if number:
            yield arrow(x - 28, 200, x - 3, 200)
    yield arrow(302, 72, 170, 139)
    yield arrow(657, 72, 480, 139)
    yield arrow(790, 140, 835, 91)

    yield text(30, 290, "one training: the sparsity asked for", "soft")
    left, right, floor, top = 80.0, 930.0, 384.0, 310.0
    line = f'fill="none" stroke="{COLOURS["decide"]}" stroke-width="2.5"'
    yield f'<path d="{_curve(left, right, floor, top)}" {line}/>'
    yield f'<path d="M{left},{top - 4}V{floor}H{right}" fill="none" stroke="{SOFT}"/>'
    yield text(left - 8, top + 6, "80 %", "soft", "end")
    yield text(left - 8, floor, "0 %", "soft", "end")
    for share, words in ((0.05, "warm-up"), (0.35, "ramp"), (0.8, "cool-down")):
        yield text(left + share * (right - left), 403, words, "soft", "middle")


def _curve(left: float, right: float, floor: float, top: float) -> str:
    """The cubic schedule with a tenth of warm-up and four tenths of cool-down."""
    points = []
    for number in range(101):
        time = number / 100
        ramp = min(max((time - 0.1) / 0.5, 0), 1)
        share = 1 - (1 - ramp) ** 3
        points.append(f"{left + time * (right - left):.1f},{floor - share * (floor - top):.1f}")
    return "M" + "L".join(points)


# ------------------------------------------------------------------------------------ what is lost


def lost() -> str:
    """Points lost at 90 %, a mean over four tasks, for each method."""
    bars = _lost()
    return picture(
        760, 96 + 26 * len(bars), "Points lost with nine tenths of the weights removed", _bars(bars)
    )


def _read(name: str) -> str:
    return (RESULTS / name).read_text(encoding="utf-8")


def _lost() -> list[tuple[str, float]]:
    """Methods with a result on every task, from the least loss to the greatest; of each what is its
    default, if that has one.
    """
    lines = [json.loads(line) for line in _read("quality_first.jsonl").splitlines()]
    values = {
        (line["recipe"], line["task"], line["sparsity"]): 100 * line["metrics"][line["metric"]]
        for line in lines
        if line["seed"] == 1 and line["run"].startswith("runs/")
    }
    recipes = {recipe for recipe, _, sparsity in values if sparsity == SPARSITY}
    complete = [r for r in recipes if all((r, task, SPARSITY) in values for task in TASKS)]
    start = mean(values["start", task, 0.0] for task in TASKS)
    losses = {
        NOW.sub("", r) + ", published" * (r in PUBLISHED): start
        - mean(values[r, task, SPARSITY] for task in TASKS)
        for r in complete
        if not any(one != r and NOW.sub("", one) == r for one in complete)
    }
    return sorted(losses.items(), key=lambda bar: (bar[1], bar[0]))


def _bars(bars: list[tuple[str, float]]) -> Iterator[str]:
    yield text(20, 34, "Points lost with nine tenths of the weights removed", "head")
    yield text(
        20, 56, "all-MiniLM-L6-v2, mean of STS-B, SST-2, MRPC, BANKING77, some 500 steps", "soft"
    )
    most = max(loss for _, loss in bars)
    for number, (recipe, loss) in enumerate(bars):
        y = 76 + 26 * number
        width = max(500 * loss / most, 1)
        ours = recipe == "auto"
        yield text(170, y + 16, recipe, "code", "end")
        yield box(180, y + 3, width, 18, COLOURS["observe" if ours else "apply"])
        yield text(188 + width, y + 17, f"{loss:.1f}", "soft")


# -------------------------------------------------------------------------- dense, sparse, engine

_ENGINES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_STOPS = {
    "dense": COLOURS["decide"],
    "sparse": COLOURS["observe"],
    "shrunk": "#0369a1",
    "packed": "#a21caf",
    "engine": COLOURS["apply"],
}
"""The stops, in their order, with their colours."""
_BY = {
    "sparse": "prune",
    "shrunk": "shrink",
    "packed": "pack",
    "engine": "runtime",
}
"""What of Sentei leads to each."""


def path() -> str:
    """Milliseconds a text, bytes and the metric, from dense to the engine."""
    facts = json.loads(_read("path.json"))
    for line in facts["lines"]:
        kind = "processor" if facts["threads"] == 1 else "clock"
        line["ms"], line["even"] = (one[kind] for one in line["milliseconds"])
        line["metric"] = Metric(facts["metric"]).text(line["metrics"][facts["metric"]])
        line["stop"] = "engine" if line["engine"] == "sentei" else line["model"]
    height = 272 + 26 * len(facts["lines"])
    return picture(960, height, "From dense to the engine", _path(facts))


def _path(facts: dict[str, Any]) -> Iterator[str]:
    zeros, threads = percent(facts["sparsity"]), facts["threads"]
    batch = facts["lines"][0]["milliseconds"][0]["batch"]
    cores = "one thread" if threads == 1 else f"{threads} threads"
    yield text(30, 34, f"{facts['title']}: {zeros} of the blocks’ weights removed", "head")
    words = f"milliseconds a text: evaluation texts in batches of {batch} as they come, {cores}"
    yield text(30, 56, f"{words}, {facts['machine']['cpu']}", "soft")
    there = {line["stop"] for line in facts["lines"]}
    firsts = [_fastest(facts, stop) for stop in _STOPS if stop in there]
    space = 900 / (4 * len(firsts) - 1)  # a box is three spaces wide
    for number, line in enumerate(firsts):
        x = 30 + 4 * space * number
        yield from _stop(x, 3 * space, line, firsts[0]["ms"], Metric(facts["metric"]).label)
        if number:
            yield arrow(x - space + 4, 145, x - 4, 145)
            yield text(x - space / 2, 135, _BY[line["stop"]], "soft", "middle")
    yield from _lines(facts["lines"])
    even = firsts[0]["milliseconds"][1]
    times = f"{firsts[0]['even'] / firsts[-1]['even']:.1f} times as fast as PyTorch"
    place = f"On {even['batch']} x {even['length']} tokens without padding it is {times}."
    words = f"Dense engines pad a batch to its longest text, Sentei’s does not. {place}"
    yield text(30, 250 + 26 * len(facts["lines"]), words, "soft")


def _fastest(facts: dict[str, Any], stop: str) -> dict[str, Any]:
    """Of a stop the fastest on the engine, and in PyTorch otherwise."""
    engine = "sentei" if stop == "engine" else "torch"
    lines = [one for one in facts["lines"] if (one["stop"], one["engine"]) == (stop, engine)]
    return min(lines, key=lambda one: float(one["ms"]))


def _stop(x: float, width: float, line: dict[str, Any], dense: float, metric: str) -> Iterator[str]:
    stop, colour = line["stop"], _STOPS[line["stop"]]
    engine = _ENGINES.get(line["engine"], "engine")
    times = f" {dense / line['ms']:.1f}x" if stop == "engine" else ""
    yield box(x, 76, width, 132, "#ffffff", colour)
    yield box(x, 76, width, 34, colour)
    yield f'<text x="{x + 12:g}" y="99" class="head" style="fill:#fff">{stop}{times}</text>'
    yield text(x + 12, 134, f"{line['ms']:#.3g} ms", "head")
    yield text(x + 12, 160, f"{line['bytes'] / 1e6:.1f} MB")
    yield text(x + 12, 180, f"{metric} {line['metric']}", "soft")
    yield text(x + 12, 198, f"{engine}, {line['precision']}", "soft")


def _lines(lines: list[dict[str, Any]]) -> Iterator[str]:
    """A bar for each model on each engine."""
    most = max(line["ms"] for line in lines)
    for number, line in enumerate(lines):
        y = 228 + 26 * number
        width = max(390 * line["ms"] / most, 1)
        engine = _ENGINES.get(line["engine"], "the engine")
        yield text(290, y + 16, f"{line['model']}, {engine} {line['precision']}", "", "end")
        yield box(300, y + 3, width, 18, _STOPS[line["stop"]])
        yield text(308 + width, y + 17, f"{line['ms']:#.3g} ms, {line['metric']}", "soft")


PICTURES = {"flow.svg": flow, "lost.svg": lost, "path.svg": path}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
