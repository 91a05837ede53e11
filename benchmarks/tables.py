"""The tables of the pages, made of benchmarks/results.

    python -m benchmarks.tables

fills in README.md and docs every block between ``<!-- table: NAME -->`` and ``<!-- end -->``. The
same results give the same bytes, and a test holds the pages to it. The names:

    methods       every method at every sparsity, one seed
    seeds         auto and the two best single methods at 90 %, all tasks and seeds
    rebuilt       without and with reconstruction
    differences   auto against these two, in pairs of task and seed
    teacher       with and without the start as a teacher
    fading        auto's teacher to the end, fading, or none
    rebuilding    what matters in a reconstruction
    ramps         when auto prunes, and how long it solves
    pretrained    dropout in one training from the pretrained model
    steps         half, twice and four times the steps
    rates         twice the learning rate
    parts         what auto is made of
    papers        what is lost, beside what is lost in the papers
    front         some methods with few steps and with many
    method NAME   one method on every task
    tasks         by kind of task
    structured    heads and neurons
    latency       how many times as fast without them
    engine MODEL  the CPU engine beside all others: mini or base, and a number of threads
    break_even    from which sparsity on it is faster than dense engines
    kernels SIZE  its kernels against the roof of the machine
    soak          what `make soak` tried, and what came of it
    result NAME   the first table of results/NAME.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import engine_tables, machine
from benchmarks.log import Log
from benchmarks.measured import against, markdown, measured, percent, pivot
from sentei.messages import did_you_mean
from sentei.records import REFERENCES

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- table: ([^>]+?) -->\n).*?(<!-- end -->)", re.S)

TASKS = {
    "stsb": "STS-B, Spearman",
    "sst2": "SST-2, accuracy",
    "mrpc": "MRPC, accuracy",
    "banking77": "BANKING77, accuracy",
    "cola": "CoLA, Matthews",
    "qnli-dev-split": "QNLI-dev split, accuracy",
}
MAIN = ("stsb", "sst2", "mrpc", "banking77")
"""Tasks that nearly every method has run on."""

RECIPES = {
    "dense": "dense, trained on",
    "start": "start",
    "auto": "`auto`, a later ramp, no reconstruction",
    "auto-alone": "`auto`, a later ramp, no reconstruction, no teacher",
    "auto-rebuilt": "`auto`",
    "auto-untaught": "`auto`, no teacher",
    "mgpp-rebuilt": "`mgpp`",
    "knowledge_aware-rebuilt": "`knowledge_aware`",
    "mgpp": "`mgpp`, published",
    "movement": "`movement`, published",
    "movement-penalty": "`movement`, penalty 400",
    "movement-push": "`movement`",
    "leap": "`leap`, no push",
    "leap-penalty": "`leap`, penalty 400",
    "leap-push": "`leap`",
    "soft_movement": "`soft_movement`, penalty 400",
    "soft_movement-push": "`soft_movement`",
    "l0": "`l0`, penalty 125",
    "l0-push": "`l0`",
    "knowledge_aware": "`knowledge_aware`, published",
    "knowledge_aware-relative": "`knowledge_aware`, no reconstruction",
}
PARTS = {
    "start": "the dense model it started from",
    "platon": "`platon`",
    "no-dropout": "without dropout",
    "no-dropout-taught": "without dropout, taught logits",
    "no-dropout-hidden": "without dropout, taught logits and hidden states",
    "no-dropout-hidden-10": "the same, hidden states weighed 10",
    "auto": "`auto`: both taught for classes, numbers alone",
    "auto-sensitivity": "`auto` with sensitivity's score for PLATON's",
    "auto-2e-4": "`auto`, twice the learning rate on MRPC",
    "auto-4e-4": "`auto`, twice the learning rate on STS-B and SST-2",
    "auto-early": "`auto`, a shorter warm-up and a cool-down of 60 %",
    "auto-held": "`auto`, masks held in the cool-down",
}
FADES = {
    "auto-now": "`auto` with a later ramp, its teacher to the end",
    "auto-fading": "fading from 0 to 100 % of training",
    "auto-faded": "fading from 10 to 60 %",
    "auto-alone": "no teacher",
}
REBUILDING = {
    "alone": "`auto` without its teacher, a ramp from 10 to 60 %, an early end of the iterations",
    "iterations": "30 iterations in place of 8, none left out",
    "exact": "8 iterations, none left out",
    "inputs": "inputs of 10 steps in place of 3, four times the tokens",
    "damping": "damping 0.001 in place of 0.01",
    "damping-more": "damping 0.1",
    "often": "a decision every 5 steps in place of 10",
    "early": "a ramp from 5 to 50 % of training in place of 10 to 60 %",
    "early-exact": "both: 8 iterations, none left out, a ramp from 5 to 50 %",
    "early-iterations": "both, with 30 iterations",
    "late": "a ramp from 10 to 75 %",
    "held": "masks held in the cool-down",
}
RAMPS = {
    "taught": "from 10 to 60 %, an early end",
    "taught-early-exact": "from 5 to 50 %, 8 iterations",
    "taught-early-iterations": "from 5 to 50 %, 30 iterations",
}
"""Of `auto`, with its teacher."""
PRETRAINED = {
    "platon": "`platon`",
    "auto": "`auto`, without dropout",
    "auto-dropout": "`auto`, with the model's dropout",
}
TOGETHER = {
    "stsb-train": "no-dropout",
    "sst2-train": "no-dropout-hidden",
    "mrpc-train": "no-dropout-hidden",
}
"""Which of the parts `auto` is at 95 %: its line is put together from theirs."""

FRONT = ("auto-rebuilt", "platon", "movement-push", "leap-push", "mgpp-rebuilt", "magnitude")
TODAY = ("auto-rebuilt", "auto-untaught")
"""Shown at the lengths that they have run with."""
STEPS = (
    ("SST-2", ("sst2", "sst2-2x", "sst2-4x")),
    ("BANKING77", ("banking77-half", "banking77", "banking77-2x")),
)
PAPERS = (
    ("stsb", "PLATON", 89.7, 87.1),
    ("sst2", "PLATON", 92.7, 90.5),
    ("mrpc", "PLATON", 86.4, 84.3),
    ("cola", "PLATON", 58.3, 44.3),
    ("qnli-dev-split", "PLATON", 91.3, 88.9),
)
"""Dense and 90 % pruned, as printed in arXiv 2203.07259, Table 5; QNLI there is the whole task."""


def title(recipe: str) -> str:
    """A recipe as the pages name it."""
    return RECIPES.get(recipe, f"`{recipe}`")


def _with_mean(means: Sequence[float | None]) -> list[str]:
    """Cells, and the mean over all of them where none is empty."""
    known = [mean for mean in means if mean is not None]
    whole = percent(sum(known) / len(known)) if len(known) == len(means) else ""
    return ["" if mean is None else percent(mean) for mean in means] + [whole]


def methods() -> str:
    runs = measured("first").where(tasks=MAIN, seed=1)
    variant = re.compile(r"-(taught|logits|alone)$")
    runs = runs.where(recipes={r.recipe for r in runs.runs if not variant.search(r.recipe)})
    rows = []
    for sparsity in (0.0, *runs.sparsities):
        if sparsity:
            rows.append([f"**{sparsity:.0%}**".replace("%", " %"), *[""] * (len(MAIN) + 1)])
        for row in pivot(runs, sparsity, "platon"):
            cells = [runs.means.get((task, row.recipe, sparsity)) for task in MAIN]
            rows.append([title(row.recipe), *_with_mean(cells)])
    return markdown(["", *(TASKS[task] for task in MAIN), "mean"], rows)


def seeds() -> str:
    runs, recipes = measured("first"), ("auto-rebuilt", "auto", "platon", "sensitivity")
    rows = []
    for sparsity in (0.9, 0.95):
        for task in TASKS:
            here = runs.where(tasks=[task])
            for seed in sorted({run.seed for run in here.runs}):
                one = here.where(seed=seed)
                cells = [one.text(task, name, sparsity) for name in recipes]
                if any(cells[:2]):
                    about = [f"{100 * sparsity:g} %", TASKS[task], str(seed)]
                    rows.append([*about, one.text(task, "start"), *cells])
    return markdown(["", "", "seed", "start", *map(title, recipes)], rows)


def differences() -> str:
    rows = []
    for recipe in ("auto-rebuilt", "auto"):
        for baseline in ("platon", "sensitivity"):
            runs = measured("first").where(recipes=(recipe, baseline))
            at = {d.sparsity: d for d in runs.differences(baseline)}
            cells = [against(at.get(sparsity)) for sparsity in (0.8, 0.9, 0.95)]
            rows.append([f"{title(recipe)}, against {title(baseline)}", *cells])
    return markdown(["", "80 %", "90 %", "95 %"], rows)


def rebuilt() -> str:
    """Without and with reconstruction; without it trainings of the first protocol count too, which
    are the same where they have as many steps.
    """
    runs, first = (measured(name).where(seed=1) for name in ("reconstruction", "first"))
    there = {"knowledge_aware": "knowledge_aware-relative"}
    rows = []
    for task in sorted(runs.metrics):
        for sparsity in runs.sparsities:
            for name in ("auto", "platon", "magnitude", "mgpp", "knowledge_aware"):
                corpus, _, steps = task.rpartition("-")
                rebuilt = f"{name}-rebuilt"
                cells = [runs.text(task, name, sparsity), runs.text(task, rebuilt, sparsity)]
                now = runs.text(task, "auto-early", sparsity) if name == "auto" else ""
                if f"{_steps(corpus)}" == steps:
                    cells[0] = cells[0] or first.text(corpus, there.get(name, name), sparsity)
                    now = now or first.text(corpus, rebuilt, sparsity)
                if cells[1] or now:
                    about = [TASKS[corpus], steps, f"{100 * sparsity:g} %", f"`{name}`"]
                    rows.append([*about, runs.text(task, "start"), *cells, now])
    head = ["", "steps", "", "", "start", "without", "with, an early end"]
    return markdown([*head, "with, all iterations"], rows)


def teacher() -> str:
    runs, tasks = measured("first").where(seed=1), ("sst2", "banking77")
    rows = []
    for recipe in ("platon", "sensitivity", "soft_movement", "mgpp", "magnitude"):
        row = []
        for task in tasks:
            taught = runs.text(task, f"{recipe}-taught", 0.9)
            row.append(f"{runs.text(task, recipe, 0.9)} → {taught}" if taught else "")
        rows.append([title(recipe), *row])
    return markdown(["90 %, without → with", *(TASKS[task] for task in tasks)], rows)


def fading() -> str:
    runs = measured("parts").where(seed=1)
    tasks = {f"{task}-train": TASKS[task] for task in ("sst2", "mrpc")} | {
        f"banking77-train-{steps}": f"{TASKS['banking77']}, {steps:,} steps"
        for steps in (313, 1252)
    }
    rows = []
    for sparsity in (0.9, 0.95):
        for recipe, name in FADES.items():
            cells = [runs.means.get((task, recipe, sparsity)) for task in tasks]
            known = ["" if cell is None else percent(cell) for cell in cells]
            if any(known):
                rows.append([f"{100 * sparsity:g} %", name, *known])
    return markdown(["", "teacher", *tasks.values()], rows)


def rebuilding() -> str:
    runs = measured("rebuilding")
    seeds = sorted({run.seed for run in runs.runs})
    rows = []
    for recipe, name in REBUILDING.items():
        cells = [runs.where(seed=seed).text("banking77-train-313", recipe, 0.95) for seed in seeds]
        if any(cells):
            rows.append([name, *cells])
    return markdown(["BANKING77, 95 %", *(f"seed {seed}" for seed in seeds)], rows)


def ramps() -> str:
    runs = measured("rebuilding")
    steps = {line["task"]: line["steps"] for line in Log("quality_rebuilding").lines}
    there = sorted({(run.task, run.sparsity, run.seed) for run in runs.runs if run.sparsity})
    rows = []
    for task, sparsity, seed in there:
        cells = [runs.where(seed=seed).text(task, recipe, sparsity) for recipe in RAMPS]
        if all(cells[:2]):
            name = f"{TASKS[task.partition('-train')[0]]}, {steps[task]:,} steps"
            rows.append([name, f"{100 * sparsity:g} %", str(seed), *cells])
    return markdown(["", "", "seed", *RAMPS.values()], rows)


def pretrained() -> str:
    runs = measured("pretrained").where(seed=1)
    rows = [
        [name, cell]
        for recipe, name in PRETRAINED.items()
        if (cell := runs.text("mrpc-train", recipe, 0.9))
    ]
    return markdown(["MRPC, 90 %", "accuracy"], rows)


def steps() -> str:
    runs = measured("first", "longer").where(seed=1)
    tasks = [task for _, same in STEPS for task in same]
    head = []
    for name, same in STEPS:
        counts = [_steps(task) for task in same]
        head += [f"{name}, {counts[0]:,} steps", *(f"{count:,}" for count in counts[1:])]
    recipes = {recipe for _, recipe, at in runs.means if at == 0.9}
    complete = {
        recipe: sum(runs.means[task, recipe, 0.9] for task in tasks)
        for recipe in recipes
        if all((task, recipe, 0.9) in runs.means for task in tasks)
    }
    rows = [[title(name), *(runs.text(task, name) for task in tasks)] for name in REFERENCES]
    best_first = sorted(complete, key=lambda name: (-complete[name], name))
    for recipe in [*TODAY, *(name for name in best_first if name not in TODAY)]:
        rows.append([title(recipe), *(runs.text(task, recipe, 0.9) for task in tasks)])
    return markdown(["90 %", *head], rows)


def rates() -> str:
    runs, rows = measured("rates"), []
    for task, name in (("sst2-train", "SST-2, accuracy"), ("stsb-train", "STS-B, Spearman")):
        for recipe in ("auto", "platon", "sensitivity", "soft_movement", "mgpp", "magnitude"):
            row = [runs.text(task, recipe, 0.9), runs.text(task, f"{recipe}-4e-4", 0.9)]
            if all(row):
                rows.append([title(recipe), name, *row])
    return markdown(["90 %", "task", "2e-4", "4e-4"], rows)


def parts() -> str:
    runs = measured("parts")
    tasks = {f"{task}-train": TASKS[task] for task in ("stsb", "sst2", "mrpc")}
    rows = []
    for recipe, name in PARTS.items():
        sparsity = 0.0 if recipe in REFERENCES else 0.95
        sources = TOGETHER if recipe == "auto" else dict.fromkeys(tasks, recipe)
        rows.append(
            [name, *_with_mean([runs.means.get((task, sources[task], sparsity)) for task in tasks])]
        )
    return markdown(["95 %", *tasks.values(), "mean"], rows)


def papers() -> str:
    runs, rows = measured("first").where(seed=1), []
    for task, paper, dense, pruned in PAPERS:
        name, _, metric = TASKS[task].partition(", ")
        ours = max(runs.means.get((task, reference, 0.0), 0.0) for reference in REFERENCES)
        left = runs.means[task, "platon", 0.9]
        rows.append([name, metric, paper, _lost(dense, pruned), _lost(100 * ours, 100 * left)])
    head = ["90 %, `platon`", "metric", "paper", "theirs: dense → pruned, lost"]
    return markdown([*head, "ours: dense → pruned, lost"], rows)


def _lost(dense: float, pruned: float) -> str:
    """In points, of the numbers as they are shown."""
    dense, pruned = round(dense, 1), round(pruned, 1)
    return f"{dense:.1f} → {pruned:.1f}, {dense - pruned:.1f}"


def front() -> str:
    """Methods with what is their default, which all the tasks have seen."""
    runs = measured("first").where(tasks=MAIN, seed=1)
    rows = [["dense, trained as long", *_with_mean([runs.means[t, "dense", 0.0] for t in MAIN])]]
    for recipe in FRONT:
        cells = [runs.means.get((task, recipe, 0.9)) for task in MAIN]
        rows.append([title(recipe), *_with_mean(cells)])
    head = [f"{TASKS[task]}, {_steps(task):,} steps" for task in MAIN]
    return markdown(["90 %", *head, "mean"], rows)


def method(recipe: str) -> str:
    """One seed, at each length of training that was measured."""
    runs = measured("first", "longer").where(seed=1)
    if recipe not in {run.recipe for run in runs.runs}:
        raise ValueError(f"method {recipe}: was not measured")
    shown = sorted({at for _, name, at in runs.means if name == recipe})
    rows = []
    for task in sorted(runs.metrics, key=_family):
        cells = [runs.text(task, recipe, at) for at in shown]
        if any(cells):
            dense = [runs.text(task, reference) for reference in REFERENCES]
            name = TASKS[_family(task)[1]]
            rows.append([name, f"{_steps(task):,}", *dense, *cells])
    head = ["", "steps", "start", "dense, trained on"]
    return markdown([*head, *(f"{100 * at:g} %" for at in shown)], rows)


def _family(task: str) -> tuple[int, str, int]:
    """The task that a longer or shorter one is, as a place in the order of the tables."""
    name = re.sub(r"-(half|\d+x)$", "", task)
    if name not in TASKS:
        return len(TASKS), name, 0
    return list(TASKS).index(name), name, _steps(task)


def _steps(task: str) -> int:
    """Optimizer steps of a run of the task that prunes."""
    lines = [line for name in ("first", "longer") for line in Log(f"quality_{name}").lines]
    return next(
        int(line["steps"]) for line in lines if line["task"] == task and line["role"] != "start"
    )


def tasks() -> str:
    lines = Log("tasks").lines
    columns = [("start", 0.0), ("dense", 0.0)]
    columns += [(name, at) for at in (0.5, 0.8) for name in ("platon", "magnitude")]
    head = [f"{title(name)} {100 * at:g} %" if at else title(name) for name, at in columns]
    metrics = {"entities": "F1", "answers": "F1", "language": "perplexity"}
    rows = []
    for task, metric in metrics.items():
        values = {(c["method"], c["sparsity"]): c["metrics"] for c in lines if c["task"] == task}
        times = 1 if metric == "perplexity" else 100
        cells = [f"{times * values[column][metric.lower()]:.1f}" for column in columns]
        rows.append([f"{task}, {metric}", *cells])
    return markdown(["", *head], rows)


def structured() -> str:
    lines = {(line["method"], line["sparsity"]): line for line in Log("structured").lines}

    def both(method: str, sparsity: float) -> str:
        line = lines.get((method, sparsity))
        return f"{percent(line['test'])} ({percent(line['dev'])})" if line else ""

    names = {"platon": "dense", "magnitude": ""}  # one dense model for both
    rows = [
        [title(name), both(dense, 0.0), both(name, 0.5), both(name, 0.8)]
        for name, dense in names.items()
    ]
    heads = ["half of heads and neurons", "10 of 12 heads, 80 % of neurons"]
    return markdown(["test (dev)", "dense", *heads], rows)


def latency() -> str:
    """Ratios to the dense model in the same engine, one thread, medians of rounds."""
    path = machine.RESULTS / "latency.json"
    one = next(run for run in json.loads(path.read_text("utf-8")) if run["threads"] == 1)
    times = {
        (row["engine"], row["batch"], row["model"]): median(row["clock"])
        for row in one["milliseconds"]
    }
    columns = [(engine, batch) for engine in ("PyTorch", "ONNX Runtime") for batch in (1, 8)]
    rows = []
    for name, model in one["models"].items():
        if name != "dense":
            fewer = one["models"]["dense"]["flops"] / model["flops"]
            loader = "`from_pretrained`" if model["stock"] else "`sentei.shrink.load`"
            faster = [times[*column, "dense"] / times[*column, name] for column in columns]
            cells = [f"{ratio:.2f}" for ratio in faster]
            rows.append([name, loader, f"1 / {fewer:.1f}", *cells])
    counts = {1: "1 text", 8: "8 texts"}
    head = [f"{engine}, {counts[batch]}" for engine, batch in columns]
    return markdown(["taken out of every layer", "loaded by", "operations", *head], rows)


def soak() -> str:
    """What was tried, by groups, and what came of it."""
    return of_trials(json.loads((machine.RESULTS / "soak.json").read_text("utf-8"))["groups"])


def of_trials(groups: Sequence[dict[str, Any]]) -> str:
    """Groups of trials: how many there were, how many were good, the faults by their kind."""
    rows = []
    for group in groups:
        faults = ", ".join(f"{count} {kind}" for kind, count in group["faults"].items())
        counts = [f"{group[key]:,}" for key in ("tried", "kills", "good")]
        rows.append([group["group"], *counts, faults or "none"])
    tried, kills, good = (sum(one[key] for one in groups) for key in ("tried", "kills", "good"))
    rows.append(["all", f"{tried:,}", f"{kills:,}", f"{good:,}", f"{tried - good:,}"])
    return markdown(["what", "trials", "kills", "as it should be", "faults"], rows)


def result(name: str) -> str:
    """The first table of a file."""
    text = (machine.RESULTS / f"{name}.md").read_text(encoding="utf-8")
    table = re.search(r"^\|.*(?:\n\|.*)*", text, re.M)
    if table is None:
        raise ValueError(f"result {name}: results/{name}.md holds no table")
    return table[0]


TABLES: dict[str, Callable[..., str]] = {
    build.__name__: build
    for build in (
        methods,
        seeds,
        differences,
        rebuilt,
        teacher,
        fading,
        rebuilding,
        ramps,
        pretrained,
        steps,
        rates,
        parts,
        papers,
        front,
        method,
        tasks,
        structured,
        latency,
        engine_tables.engine,
        engine_tables.break_even,
        engine_tables.kernels,
        soak,
        result,
    )
}


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def fill(text: str) -> str:
    """A page with its tables as the results have them now.

    Raises:
        ValueError: A block names no table.
    """

    def replace(block: re.Match[str]) -> str:
        name, *words = block[2].split()
        if name not in TABLES:
            raise ValueError(f"table: {name}: there is none{did_you_mean(name, TABLES)}")
        return f"{block[1]}\n{TABLES[name](*words)}\n\n{block[3]}"

    return BLOCK.sub(replace, text)


def main() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
