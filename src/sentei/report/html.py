"""The page of a run: facts in words and tables, filled into ``template.html.j2``."""

from __future__ import annotations

import json
from typing import NamedTuple

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from sentei.messages import printable
from sentei.records import RunReport, SpeedReport
from sentei.report import charts, speed
from sentei.report.facts import (
    LayerTable,
    Metric,
    Share,
    count,
    duration,
    headline,
    left,
    percent,
    size,
    together,
    unit_name,
    units_by_layer,
)
from sentei.report.speed_chart import speed_chart

_WORDS = {
    "weight": "One number of the model. A model is a list of large tables (matrices) of weights.",
    "prunable": "The weights this run was allowed to remove, usually the matrices of attention and "
    "feed-forward layers. Embeddings, norms and the classifier stay dense.",
    "sparsity": "The share of weights that are exactly zero: 80 % means one in five is left. It is "
    "stated twice, over the prunable weights and over all parameters.",
    "unit": "What one decision is about: a single weight, or a whole block, row, attention head or "
    "neuron, all of whose weights are kept or zero together.",
    "mask": "Which weights are kept and which are zero.",
    "score": "How important a method holds a weight to be; low scores are pruned.",
    "threshold": "The score at the cut: what scores below it is pruned.",
    "update": "An optimizer step at which the mask is decided anew.",
    "overlap": "How alike two masks in a row are: of the weights that either keeps, the share that "
    "both keep. 1 means that nothing changed.",
    "role": "What a matrix does in its layer: query, key, value and attention_out make the "
    "attention, ffn_in and ffn_out the feed-forward network.",
    "dense": "Not pruned: the same model with all its weights, trained or measured for comparison.",
}


class _Tile(NamedTuple):
    value: str
    label: str


class _Heat(NamedTuple):
    """A cell of the table of layers and roles."""

    text: str
    color: str
    title: str


def fill(template: str, **values: object) -> str:
    """A page from its template, which knows the colours of charts and how numbers are written.

    Control characters in names of others are shown, and turn no line around.
    """
    environment = Environment(
        loader=PackageLoader("sentei", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = (count, size, duration, percent, left)
    environment.filters |= {write.__name__: write for write in written}
    colors = {"kept": charts.KEPT, "pruned": charts.PRUNED, "loss": charts.LOSS}
    return printable(environment.get_template(template).render(colors=colors, **values))


def render(report: RunReport, timed: SpeedReport | None = None) -> str:
    """The whole page as text, with what was timed of the model."""
    plain = report.model_dump(mode="json")
    table = LayerTable(report.pruning.sites)
    return fill(
        "template.html.j2",
        report=report,
        headline=headline(report).replace("->", "→"),
        tiles=_tiles(report),
        curves=charts.curves(report),
        histograms=charts.histograms(report.pruning),
        dynamics=charts.dynamics(report.pruning),
        metrics=_metrics(report),
        table=table,
        heat=_heat(table),
        units={
            unit_name(kind): layers for kind, layers in units_by_layer(report.pruning.units).items()
        },
        sizes=_sizes(report),
        speed=_speed(timed) if timed else None,
        settings={key: _setting(value) for key, value in plain["settings"].items()},
        recipe=yaml.safe_dump(plain["pruning"]["recipe"], sort_keys=False, allow_unicode=True),
        words=_WORDS,
    )


def _tiles(report: RunReport) -> list[_Tile]:
    p = report.pruning
    tiles = [
        _Tile(percent(p.pruned, p.prunable), "of the prunable weights are zero"),
        _Tile(percent(p.zeros, p.parameters), "of all parameters are zero"),
        _Tile(count(p.prunable - p.pruned), f"prunable weights left of {count(p.prunable)}"),
    ]
    for kind, layers in units_by_layer(p.units).items():
        tiles.append(_Tile(left(together(layers.values())), f"{unit_name(kind)} left"))
    sparse = report.sparse.get(report.metric)
    dense = (report.dense or {}).get(report.metric)
    if sparse is not None:
        metric = Metric(report.metric)
        tiles.append(_Tile(metric.text(sparse), f"{metric.label} of this model{metric.direction}"))
        if dense is not None:
            label = f"{metric.label} against {metric.text(dense)} dense"
            tiles.append(_Tile(metric.change(dense, sparse), label))
    if "total" in report.seconds:
        steps = f"for {p.step} optimizer steps" if p.total_steps else "without training"
        tiles.append(_Tile(duration(report.seconds["total"]), steps))
    return tiles


def _metrics(report: RunReport) -> list[tuple[str, str, str, str]]:
    """Rows of name, dense, sparse, change; what was not measured is empty."""
    dense = report.dense or {}
    rows = []
    for name in dict.fromkeys([*report.sparse, *dense]):
        metric, before, after = Metric(name), dense.get(name), report.sparse.get(name)
        old, new = ("" if value is None else metric.text(value) for value in (before, after))
        change = "" if before is None or after is None else metric.change(before, after)
        rows.append((metric.label + metric.direction, old, new, change))
    return rows


def _heat(table: LayerTable) -> list[tuple[str, list[_Heat | None], Share]]:
    """Rows of the table; colour runs from the sparsest to the densest cell."""
    values = [share.sparsity for share in table.shares.values()] or [0.0]
    low, span = min(values), max(max(values) - min(values), 0.05)
    rows = []
    for layer in table.layers:
        row: list[_Heat | None] = []
        for role in table.roles:
            share = table.shares.get((layer, role))
            if share is None:
                row.append(None)
                continue
            alpha = round(255 * (0.08 + 0.6 * (share.sparsity - low) / span))
            title = f"{count(share.weights - share.pruned)} of {count(share.weights)} kept"
            text = f"{100 * share.sparsity:.1f}"
            row.append(_Heat(text, f"{charts.PRUNED}{alpha:02x}", title))
        rows.append(("outside" if layer is None else str(layer), row, table.by_layer[layer]))
    return rows


def _sizes(report: RunReport) -> list[tuple[str, int, float]]:
    """Rows of label, bytes, share of the largest."""
    s = report.sizes
    rows = {
        "Dense model, file": s.dense_file,
        "This model, file": s.sparse_file,
        "Packed, every bit": s.packed,
        "Packed, bf16": s.packed_bf16,
        "Packed, int8": s.packed_int8,
    }
    most = max(*rows.values(), 1)
    return [(label, value, value / most) for label, value in rows.items()]


def _speed(timed: SpeedReport) -> dict[str, object]:
    """Tables and sentences of the speeds."""
    heads = speed.headings(timed)
    return {
        "legend": f"{timed.machine.get('cpu', '')}. {speed.legend(timed)}",
        "words": timed.words,
        "absent": timed.absent,
        "headings": heads[1:],
        "chart": speed_chart(timed),
        "tables": [
            (speed.title(one), [row[: len(heads)] for row in speed.rows(timed, one)])
            for one in timed.workloads
        ],
    }


def _setting(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
