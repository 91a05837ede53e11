"""Charts as inline SVG.

Text stays text, axes take the page's colour, and the same data gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from sentei.records import Histogram, PruningReport, RunReport
from sentei.report.facts import Metric, count

KEPT, PRUNED, LOSS = "#2b9482", "#cf7434", "#5f83cc"
"""Mid-tones: readable on white and on black."""

INK = "#010203"
"""Stands for the page's text colour, which matplotlib cannot name."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sentei",
    "text.parse_math": False,  # a '$' in a user's metric name is a dollar
    "axes.formatter.use_mathtext": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "lines.linewidth": 1.6,
}
_POINTS = 800  # more cannot be seen on a chart of this size

Line = tuple[Sequence[float], Sequence[float]]


class Chart(NamedTuple):
    """A picture with its title and a sentence that says how to read it."""

    title: str
    caption: str
    svg: Markup


def curves(report: RunReport) -> list[Chart]:
    """Loss, sparsity and metric over the optimizer steps; those that have points."""
    p, metric = report.pruning, Metric(report.metric)
    charts: list[Chart] = []

    steps = [point.step for point in report.train]
    losses = [point.loss for point in report.train]
    if np.isfinite(losses).any():

        def draw_loss(axes: Axes) -> None:
            _line(axes, (steps, losses), color=LOSS, label="loss")

        caption = "Mean training loss between two logged steps: lower is better."
        charts.append(chart("loss", "Training loss", caption, draw_loss))

    decided = [u.step for u in p.updates]
    line: Line = (decided, [u.pruned / max(p.prunable, 1) for u in p.updates])
    if report.train:
        line = (steps, [point.sparsity for point in report.train])
    if line[0]:

        def draw_sparsity(axes: Axes) -> None:
            _line(axes, line, color=PRUNED, label="zero weights")
            if p.updates:
                goal = [u.target for u in p.updates]
                _line(axes, (decided, goal), color=INK, ls=(0, (2, 2)), lw=1, label="target")
            axes.set_ylim(0, 1)
            _percents(axes)
            legend(axes)

        caption = "Share of the prunable weights that are zero, and what the schedule asked for."
        charts.append(chart("sparsity", "Sparsity", caption, draw_sparsity))

    points = [e for e in report.evaluations if np.isfinite(e.metrics.get(report.metric, np.nan))]
    values = [e.metrics[report.metric] for e in points]
    dense = (report.dense or {}).get(report.metric)
    if points:

        def draw_metric(axes: Axes) -> None:
            _line(axes, ([e.step for e in points], values), color=KEPT, dots=40, label="this model")
            if dense is not None:
                axes.axhline(dense, color=INK, ls=(0, (2, 2)), lw=1, label="dense model")
            if all(map(metric.is_fraction, values)):
                _percents(axes)
            legend(axes)

        caption = f"Measured on the evaluation data during training{metric.direction}."
        title = metric.label[:1].upper() + metric.label[1:]
        charts.append(chart("metric", title, caption, draw_metric))
    return charts


def dynamics(pruning: PruningReport) -> list[Chart]:
    """How the mask moved from update to update; nothing where there was no update."""
    updates = pruning.updates
    steps = [u.step for u in updates]
    charts: list[Chart] = []

    def add(title: str, caption: str, line: Line, color: str, scale: str) -> None:
        def draw(axes: Axes) -> None:
            _line(axes, line, color=color)
            if scale == "percent":
                axes.set_ylim(bottom=0)
                _percents(axes)
            elif scale == "log":
                _log(axes.yaxis)

        charts.append(chart(title.lower().replace(" ", "-"), title, caption, draw))

    if updates:
        flips = [u.flips / max(pruning.prunable, 1) for u in updates]
        caption = "Share of the prunable weights that were cut or came back at each update."
        add("Mask changes", caption, (steps, flips), PRUNED, "percent")
        caption = "Of the weights kept before or after an update, the share kept by both."
        add("Overlap", caption, (steps, [u.overlap for u in updates]), KEPT, "linear")
    cuts = [(u.step, t) for u in updates if (t := u.threshold) is not None and np.isfinite(t)]
    if cuts:
        log = all(threshold > 0 for _, threshold in cuts)
        line = ([s for s, _ in cuts], [np.log10(t) if log else t for _, t in cuts])
        caption = "The score at the cut: weights that score less are set to zero."
        add("Threshold", caption, line, LOSS, "log" if log else "linear")
    return charts


def histograms(pruning: PruningReport) -> list[Chart]:
    """Weights and scores, kept and pruned."""
    cut = pruning.updates[-1].threshold if pruning.updates else None
    charts = []
    if pruning.weight_histogram is not None:
        charts.append(_histogram("Weights", "value", pruning.weight_histogram, None))
    if pruning.score_histogram is not None:
        charts.append(_histogram("Scores", "score", pruning.score_histogram, cut))
    return charts


def _histogram(title: str, label: str, data: Histogram, cut: float | None) -> Chart:
    if cut is not None and data.log10:
        cut = float(np.log10(cut)) if cut > 0 else None

    def draw(axes: Axes) -> None:
        for counts, color, name in ((data.kept, KEPT, "kept"), (data.pruned, PRUNED, "pruned")):
            if any(counts):
                axes.stairs(counts, data.edges, fill=True, color=color, alpha=0.65, label=name)
        if cut is not None and data.edges[0] <= cut <= data.edges[-1]:
            axes.axvline(cut, color=INK, ls=(0, (2, 2)), lw=1, label="last threshold")
        # One bar far above all others (the zeros) would flatten the rest: cut it, and say so.
        second, first = sorted((0, 0, *data.kept, *data.pruned))[-2:]
        if first > 4 * second > 0:
            axes.set_ylim(0, 1.3 * second)
            axes.set_title(f"cut off at the top: {count(first)}", fontsize=8, loc="right")
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: count(y)))
        if data.log10:
            _log(axes.xaxis)
        legend(axes)

    caption = f"How many weights have which {label}; the outermost bars count all beyond."
    if data.log10:
        caption += f" Logarithmic axis: {count(data.zeros)} zeros are not drawn."
    return chart(title.lower().replace(" ", "-"), title, caption, draw)


def chart(
    key: str,
    title: str,
    caption: str,
    draw: Callable[[Axes], None],
    size: tuple[float, float] = (4.2, 2.5),
) -> Chart:
    """A chart as SVG.

    Args:
        key: Sets its ids apart from those of the page's other charts.
        title: Above it.
        caption: How to read it.
        draw: Draws it; where it names no x axis, that is optimizer steps.
        size: Width and height in inches, of text of 9 points.
    """
    with matplotlib.style.context(_STYLE, after_reset=True):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if not axes.get_xlabel():
            axes.set_xlabel("optimizer step")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Chart(title, caption, Markup(_inline(text.getvalue(), key, title, caption)))


def _inline(svg: str, key: str, title: str, caption: str) -> str:
    """The ``svg`` element for a page: named, its ids its own, sized by its box."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", body).replace(INK, "currentColor")
    name = f"<title>{escape(title)}</title><desc>{escape(caption)}</desc>"
    return f'<svg role="img" {box[0] if box else ""}>{name}{body}'


def _line(axes: Axes, line: Line, dots: int = 3, **style: object) -> None:
    """Draws a line, with dots where it has fewer points than that."""
    x, y = _thin(*(np.asarray(values, float) for values in line))
    axes.plot(x, y, marker="o" if len(x) < dots else "", ms=4, **style)  # type: ignore[arg-type]


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The lowest and the highest point of each bucket, so that no spike is lost."""
    if len(x) <= _POINTS:
        return x, y
    ends = np.linspace(0, len(x), _POINTS // 2 + 1).astype(int)
    peaks = [a + peak(y[a:b]) for a, b in pairwise(ends) for peak in (np.argmin, np.argmax)]
    chosen = np.unique([0, len(x) - 1, *peaks])
    return x[chosen], y[chosen]


def _percents(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.6g} %"))


def _log(axis: Axis) -> None:
    """Labels an axis of base-10 logarithms: whole powers where it spans several."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(MaxNLocator(6, integer=high - low > 2))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{10**x:.2g}"))


def legend(axes: Axes) -> None:
    """Above the axes, where it can hide nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderpad=0, columnspacing=1
        )
