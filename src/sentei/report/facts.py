"""What the page and the console both say: the sentence, numbers in words, layers and roles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from sentei.records import RunReport, SiteRecord, UnitsRecord

_ROLES = (
    *("query", "key", "value", "qkv", "attention_out"),
    *("cross_query", "cross_key", "cross_value", "cross_key_value", "cross_out"),
    *("ffn_gate", "ffn_in", "ffn_in_gate", "ffn_out"),
)
"""The usual roles, in the order in which data passes them."""

_UNITS = {
    "head": "attention heads",
    "neuron": "neurons",
    "row": "rows",
    "column": "columns",
}

_SHARES = ("accuracy", "f1", "precision", "recall", "exact_match", "auc", "rouge")
_LOWER = ("perplexity", "loss")
_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def headline(report: RunReport) -> str:
    """The result of the run in one sentence."""
    p = report.pruning
    text = (
        f"{percent(p.pruned, p.prunable)} of the {count(p.prunable)} prunable weights are zero "
        f"({percent(p.zeros, p.parameters)} of all {count(p.parameters)} parameters)"
    )
    sparse = report.sparse.get(report.metric)
    dense = (report.dense or {}).get(report.metric)
    if sparse is None:
        return text + "."
    metric = Metric(report.metric)
    if dense is None:
        return f"{text}; {metric.label} {metric.text(sparse)}{metric.direction}."
    return (
        f"{text}; {metric.label} {metric.text(dense)} dense -> {metric.text(sparse)} sparse, "
        f"{metric.change(dense, sparse)}{metric.direction}."
    )


class Metric:
    """How to write the values of a metric: shares as percent, all others as they are.

    ``lower_is_better`` is what perplexity and losses have of their own.
    """

    def __init__(self, name: str) -> None:
        self.label = _NAMES.get(name) or name.replace("_", " ")
        self.lower_is_better = any(part in name.lower() for part in _LOWER)
        self._share = any(part in name.lower() for part in _SHARES)

    @property
    def direction(self) -> str:
        """What to add where readers would take more for better."""
        return " (lower is better)" if self.lower_is_better else ""

    def is_fraction(self, value: float) -> bool:
        """Whether it is shown in percent: some libraries give shares as 0.91, some as 91."""
        return self._share and -1 <= value <= 1

    def text(self, value: float) -> str:
        """The value."""
        return f"{100 * value:.1f} %" if self.is_fraction(value) else f"{value:.4g}"

    def change(self, before: float, after: float) -> str:
        """The signed difference; of two shares in percentage points."""
        if not (self.is_fraction(before) and self.is_fraction(after)):
            return f"{after - before:+.3g}"
        # The difference of the numbers as they are shown, or readers find sums that do not add up.
        points = round(100 * after, 1) - round(100 * before, 1)
        return f"{round(points, 1) + 0.0:+.1f} points"


def percent(part: float, whole: float = 1.0) -> str:
    """``part / whole`` in percent; more digits where one would round to all or nothing."""
    share = part / whole if whole else 0.0
    near = 0 < share < 0.001 or 0.999 < share < 1
    return f"{100 * share:.{3 if near else 1}f} %"


def count(number: float) -> str:
    """10.6 M for 10 616 832."""
    return str(int(number)) if abs(number) < 1000 else _scaled(number, ("", "k", "M", "B", "T"))


def size(number: float) -> str:
    """Bytes in decimal units: 90.9 MB."""
    return f"{int(number)} B" if number < 1000 else _scaled(number, ("B", "kB", "MB", "GB", "TB"))


def duration(seconds: float) -> str:
    """2 min 14 s."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _scaled(number: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if abs(round(number, 1)) < 1000:
            return f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} {units[-1]}"


class Share(NamedTuple):
    """Some of the prunable weights, or of units of them."""

    weights: int
    pruned: int

    @property
    def sparsity(self) -> float:
        """Fraction that is zero."""
        return self.pruned / self.weights if self.weights else 0.0


def total(sites: Iterable[SiteRecord]) -> Share:
    """The sum over sites."""
    sites = tuple(sites)
    return Share(sum(site.weights for site in sites), sum(site.pruned for site in sites))


def unit_name(kind: str) -> str:
    """What the units of a pattern are called: attention heads."""
    if re.fullmatch(r"\d+x\d+", kind):
        return f"blocks of {kind}"
    if re.fullmatch(r"\d+:\d+", kind):
        return f"weights in {kind}"
    return _UNITS.get(kind, f"units of {kind}")


def units_by_layer(units: Iterable[UnitsRecord]) -> dict[str, dict[int | None, Share]]:
    """Units of every pattern, by layer; what has no layer comes last."""
    shares: dict[str, dict[int | None, Share]] = {}
    for record in sorted(units, key=lambda record: (record.layer is None, record.layer or 0)):
        layers = shares.setdefault(record.pattern, {})
        sofar = layers.get(record.layer, Share(0, 0))
        layers[record.layer] = Share(sofar.weights + record.units, sofar.pruned + record.pruned)
    return shares


def together(shares: Iterable[Share]) -> Share:
    """The sum of shares."""
    shares = tuple(shares)
    return Share(sum(share.weights for share in shares), sum(share.pruned for share in shares))


def left(share: Share) -> str:
    """1,024 of 3,072: units are counted exactly."""
    return f"{share.weights - share.pruned:,} of {share.weights:,}"


class LayerTable:
    """Sites by layer (rows) and role (columns); what has no layer is in the row ``None``.

    At most ``limit`` roles have a column of their own, the rest share ``other``.
    """

    def __init__(self, sites: tuple[SiteRecord, ...], limit: int = 10) -> None:
        names = list(dict.fromkeys(site.role for site in sites))
        roles = [r for r in _ROLES if r in names] + [r for r in names if r not in _ROLES]
        if len(roles) > limit:
            roles = roles[: limit - 1]
        groups: dict[tuple[int | None, str], list[SiteRecord]] = {}
        for site in sites:
            role = site.role if site.role in roles else "other"
            groups.setdefault((site.layer, role), []).append(site)
        present = {role for _, role in groups}
        self.roles = [*roles, "other"] if "other" in present - set(roles) else roles
        self.shares = {key: total(group) for key, group in groups.items()}
        layers = {site.layer for site in sites}
        self.layers = sorted(layers, key=lambda n: (n is None, n or 0))
        self.by_layer = {n: total(s for s in sites if s.layer == n) for n in self.layers}
        self.by_role = {
            role: together(share for key, share in self.shares.items() if key[1] == role)
            for role in self.roles
        }
