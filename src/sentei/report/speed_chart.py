"""Speeds as a picture: sequences a second of every engine on every workload."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sentei.records import SpeedReport, WorkloadRecord
from sentei.report.charts import INK, KEPT, LOSS, PRUNED, Chart, chart, legend
from sentei.report.facts import count
from sentei.report.speed import title

_COLORS: Final = {
    "sentei": KEPT,
    "onnxruntime": PRUNED,
    "openvino": LOSS,
    "shrunk": "#a06ab4",
    "torch": INK,
}
_STYLES: Final = {"int8": "-", "bf16": (0, (5, 1.5)), "fp32": (0, (1.2, 1.2))}


def speed_chart(report: SpeedReport) -> Chart:
    """A line for each engine over the workloads, fast ones high."""
    places = [_place(one) for one in report.workloads]

    def draw(axes: Axes) -> None:
        for engine in report.engines:
            speeds = {(o.batch, o.length): o for o in report.speeds if o.label == engine.label}
            axes.plot(
                places,
                [
                    1e3 / report.milliseconds(speeds[one.batch, one.length])
                    for one in report.workloads
                ],
                color=_COLORS.get(engine.engine, INK),
                linestyle=_STYLES[engine.precision],
                marker="o",
                ms=4,
                label=engine.label,
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: count(y)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.08)
        axes.set_xlabel("what was run")
        axes.set_ylabel("sequences a second")
        legend(axes)

    threads = "one thread" if report.threads == 1 else f"{report.threads} threads"
    caption = f"Sequences a second on {threads}, on a logarithmic axis: higher is faster."
    return chart("speed", "Speed", caption, draw, (6.8, 3.6))


def _place(workload: WorkloadRecord) -> str:
    """In two short lines."""
    what = {"data": "texts", "sorted": "sorted texts"}.get(workload.length)
    batch, _, usual = title(workload).lower().partition(", ")
    return f"{batch}\n{what or usual}"


def picture(report: SpeedReport) -> str:
    """The chart as a file of its own."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = speed_chart(report).svg.replace(
        "<svg ", f'<svg {names} style="background:#fff;color:#1c2024" ', 1
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n'
