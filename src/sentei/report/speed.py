"""The speeds of a model on several engines: tables, and what follows in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sentei.records import EngineRecord, SpeedRecord, SpeedReport, WorkloadRecord
from sentei.report.facts import Metric, percent

OURS: Final = "sentei"
"""The engine that leaves zeros out; all others are dense."""

_TORCH: Final = "torch fp32"
"""What people have without an engine."""

HEADINGS: Final = ("engine", "ms", "CPU ms", "faster", "differs", "most")
"""Of the tables; the metric follows where it was measured."""


SPARSE: Final = 0.01
"""The zeros that a dense model may have by chance."""

FAR: Final = 0.05
"""A relative difference of outputs that is worth a look at the metric."""

LITTLE: Final = 1.05
"""What is less than so many times as fast is not worth a sentence."""


class Row(NamedTuple):
    """An engine on a workload, in words."""

    engine: str
    clock: str
    processor: str
    faster: str
    difference: str
    most: str
    metric: str


def title(workload: WorkloadRecord) -> str:
    """Batch 8, 128 tokens."""
    what = {
        "data": "texts as they come",
        "sorted": "texts sorted by length",
        "image": "images",
    }.get(workload.length, f"{workload.length} tokens")
    return f"Batch {workload.batch}, {what}"


def rows(report: SpeedReport, workload: WorkloadRecord) -> list[Row]:
    """Of a workload, the fastest engine first."""
    speeds = report.on(workload)
    base = next(one for one in speeds if one.label == report.baseline)
    engines = {one.label: one for one in report.engines}
    return [
        Row(
            engine=one.label,
            clock=f"{one.clock:.3g}",
            processor=f"{one.processor:.3g}",
            faster=f"{_ratio(report, base, one):.2f}x",
            difference=f"{one.difference:.1e}",
            most=f"{one.most:.1e}",
            metric=_metric(report, engines[one.label]),
        )
        for one in speeds
    ]


def legend(report: SpeedReport) -> str:
    """How the tables are to be read."""
    threads = "one thread" if report.threads == 1 else f"{report.threads} threads"
    kind = "CPU time, which does not count waiting" if report.threads == 1 else "the clock"
    return (
        f"Milliseconds a sequence, {threads}, by the clock and of CPU time: medians of "
        f"{report.rounds} rounds in which all engines take turns. Faster: than {report.baseline}, "
        f"by {kind}. Differs: outputs from torch fp32, relative in the L2 norm; most: the largest "
        "difference."
    )


def markdown(report: SpeedReport) -> str:
    """All of it as a page."""
    lines = [f"# {report.model}", "", zeros(report), "", legend(report), ""]
    lines += [f"- {sentence}" for sentence in report.words]
    for workload in report.workloads:
        heads = headings(report)
        lines += ["", f"## {title(workload)}", "", f"| {' | '.join(heads)} |"]
        lines.append("|---" + "|---:" * (len(heads) - 1) + "|")
        lines += [f"| {' | '.join(row[: len(heads)])} |" for row in rows(report, workload)]
    lines += ["", "## Not timed", ""] if report.absent else []
    lines += [f"- {sentence}" for sentence in report.absent]
    lines += ["", "## Machine", ""]
    lines += [f"- {key}: {value}" for key, value in report.machine.items()]
    return "\n".join(lines) + "\n"


def headings(report: SpeedReport) -> tuple[str, ...]:
    """Of the columns."""
    return (*HEADINGS, *([Metric(report.metric).label] if report.metric else []))


def zeros(report: SpeedReport) -> str:
    """How sparse the model is."""
    return (
        f"{percent(report.sparsity)} of the weights of its blocks are zero, "
        f"{percent(report.sparsity_all)} of all parameters."
    )


# -------------------------------------------------------------------------------------- in words


def in_short(report: SpeedReport) -> str:
    """One sentence: Sentei's engine beside PyTorch, on evaluation texts where some were timed."""
    texts = [one for one in report.workloads if not one.length.isdigit()]
    workload = (texts or report.workloads)[-1]
    speeds = report.on(workload)
    ours = next((one for one in speeds if one.engine == OURS), None)
    theirs = next((one for one in speeds if one.label == _TORCH), None)
    if ours is None:
        why = [one.partition(": ")[2] for one in report.absent if one.startswith(f"{OURS} ")]
        return f"Sentei's engine does not run it here: {why[0]}" if why else report.words[0]
    if theirs is None:
        return report.words[0]
    item = "image" if workload.length == "image" else "text"
    kind = f"{workload.length}-token" if workload.length.isdigit() else "evaluation"
    threads = "one thread" if report.threads == 1 else f"{report.threads} threads"
    return (
        f"Sentei's engine ({ours.precision}) reads the {kind} {item}s "
        f"{_times(report, theirs, ours)} as fast as PyTorch (fp32): "
        f"{report.milliseconds(ours):.3g} ms {_an(item)} on {threads}, in batches of "
        f"{workload.batch}, instead of {report.milliseconds(theirs):.3g}{_both(report, ours)}."
    )


def _an(item: str) -> str:
    return f"an {item}" if item == "image" else f"a {item}"


def _both(report: SpeedReport, ours: SpeedRecord) -> str:
    """The metric of an engine and of torch fp32, where it was measured."""
    values = {one.label: one.metrics.get(report.metric or "") for one in report.engines}
    value, exact = values.get(ours.label), values.get(_TORCH)
    if value is None or exact is None:
        return ""
    metric = Metric(report.metric or "")
    one, other = metric.text(value), metric.text(exact)
    return f"; {metric.label} {one}{' with both' if one == other else f' instead of {other}'}"


def words(report: SpeedReport) -> tuple[str, ...]:
    """What the numbers say: the fastest, whether sparsity pays, and at which price."""
    return (*_fastest(report), *_sparsity(report), *_shrunk(report), *_price(report))


def _fastest(report: SpeedReport) -> Iterator[str]:
    """A sentence for each engine that is the fastest somewhere."""
    where: dict[str, list[WorkloadRecord]] = {}
    for workload in report.workloads:
        where.setdefault(report.on(workload)[0].label, []).append(workload)
    for label, workloads in where.items():
        last = workloads[-1]
        first, *others = report.on(last)
        base = next(one for one in report.on(last) if one.label == report.baseline)
        places = "throughout" if len(where) == 1 else f"at {_listed(map(_place, workloads))}"
        text = f"Fastest {places}: {label}"
        if label != report.baseline:
            text += f", {_times(report, base, first)} as fast as {report.baseline}"
        dense = next((one for one in others if one.engine not in (OURS, "shrunk")), None)
        if first.engine == OURS and dense and dense.label != report.baseline:
            times = _times(report, dense, first)
            text += f" and {times} as fast as the best dense engine, {dense.label},"
        at = "" if len(report.workloads) == 1 else f" at {_place(last)}"
        yield f"{text if at else text.removesuffix(',')}{at}."


def _sparsity(report: SpeedReport) -> Iterator[str]:
    """Whether leaving zeros out pays, against the best dense engine at each size."""
    ratios = dict(_ratios(report))
    slower = {place: one for place, one in ratios.items() if one[0] < 1}
    share = percent(report.sparsity)
    if not ratios:
        if report.sparsity >= SPARSE:
            yield f"No engine here leaves zeros out, so that {share} of them give no speed."
    elif slower:
        best = _listed(dict.fromkeys(label for _, label in slower.values()))
        ends = min(slower.values())[0], max(slower.values())[0]
        span = " to ".join(dict.fromkeys(f"{end:.2f}" for end in ends))
        everywhere = len(slower) == len(ratios)
        places = "" if everywhere else f" at {_listed(slower)}"
        so = "Sparsity gives no speed here: prune" if everywhere else "There, prune"
        so += " more" if report.sparsity >= SPARSE else ""
        yield (
            f"At {share} sparsity Sentei's engine is slower than {best}{places}, {span} times its "
            f"speed. {so}, prune in blocks of 4x1 or whole heads and neurons, or use {best}."
        )


def _ratios(report: SpeedReport) -> Iterator[tuple[str, tuple[float, str]]]:
    """By workload, how many times as fast ours is as the best dense engine, and which that is."""
    for workload in report.workloads:
        speeds = report.on(workload)
        ours = next((one for one in speeds if one.engine == OURS), None)
        dense = next((one for one in speeds if one.engine not in (OURS, "shrunk")), None)
        if ours and dense:
            yield _place(workload), (_ratio(report, dense, ours), dense.label)


def _shrunk(report: SpeedReport) -> Iterator[str]:
    """What taking out idle heads and neurons gives by itself."""
    for workload in report.workloads[-1:]:
        speeds = {one.label: one for one in report.on(workload)}
        whole, shrunk = speeds.get(_TORCH), speeds.get("shrunk fp32")
        if whole and shrunk and _ratio(report, whole, shrunk) >= LITTLE:
            times = _times(report, whole, shrunk)
            yield f"Without its idle heads and neurons the model is {times} as fast in torch."


def _price(report: SpeedReport) -> Iterator[str]:
    """What engines lose of the metric against torch fp32, and outputs that are not numbers."""
    for bad in dict.fromkeys(one.label for one in report.speeds if math.isinf(one.difference)):
        yield f"{bad} gives outputs that are not finite."
    for one in report.engines:
        if one.note:
            yield f"{one.label} was not measured on the evaluation data: {one.note}"
    engines = {one.label: one for one in report.engines}
    exact = engines.get(_TORCH)
    firsts = dict.fromkeys(report.on(workload)[0].label for workload in report.workloads)
    if report.metric is None:
        yield from _far(report, firsts)
        return
    if exact is None or report.metric not in exact.metrics:
        return
    metric, right = Metric(report.metric), exact.metrics[report.metric]
    for label in firsts:
        value = engines[label].metrics.get(report.metric)
        if label != exact.label and value is not None:
            yield (
                f"{label} has {metric.label} {metric.text(value)}, {metric.change(right, value)} "
                f"against torch fp32{metric.direction}."
            )


def _far(report: SpeedReport, labels: Iterable[str]) -> Iterator[str]:
    """Engines whose outputs are far from torch fp32, where no metric says what that means."""
    for label in labels:
        most = max(one.difference for one in report.speeds if one.label == label)
        if FAR <= most < math.inf:
            yield (
                f"The outputs of {label} differ from torch fp32 by up to {percent(most)}. Whether "
                "that matters the metric says: name evaluation data with --task or --eval."
            )


def _metric(report: SpeedReport, engine: EngineRecord) -> str:
    value = engine.metrics.get(report.metric) if report.metric else None
    return "" if value is None else Metric(report.metric or "").text(value)


def _ratio(report: SpeedReport, slow: SpeedRecord, fast: SpeedRecord) -> float:
    return report.milliseconds(slow) / report.milliseconds(fast)


def _times(report: SpeedReport, slow: SpeedRecord, fast: SpeedRecord) -> str:
    return f"{_ratio(report, slow, fast):.3g} times"


def _place(workload: WorkloadRecord) -> str:
    whole = title(workload)
    return whole[:1].lower() + whole[1:]


def _listed(items: Iterable[str]) -> str:
    """A, b and c."""
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
