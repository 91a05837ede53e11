"""What a run leaves behind: plain records, the same facts in Python and in JSON.

Sparsity is always stated twice: over the prunable weights (the scope) and over all parameters.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen piece of a report; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class SiteRecord(Record):
    """One pruned tensor.

    ``layer`` is the number of the block it belongs to (None outside numbered blocks), ``role``
    what its family calls it (``query``, ``ffn_in``, ...; the module's own name if unknown).
    """

    name: str
    layer: int | None
    role: str
    shape: tuple[int, ...]
    weights: int
    pruned: int


class UnitsRecord(Record):
    """Heads, neurons, blocks, ... of one place, and how many of them were pruned.

    ``pattern`` is what people call theirs, such as ``head`` or ``32x32``. Under an N:M pattern a unit
    is one weight.
    """

    pattern: str
    name: str
    layer: int | None
    units: int
    pruned: int


class UpdateRecord(Record):
    """One decision.

    ``settled`` says that ``pruned`` is the exact count for ``target``, and not what a learned or
    fixed threshold came to. ``flips`` counts mask entries that changed since the previous decision;
    ``overlap`` is the Jaccard index of the kept sets before and after it (1 = nothing changed);
    ``threshold`` is the score at the cut, None where there is one per site.
    """

    step: int
    target: float
    pruned: int
    settled: bool = True
    flips: int
    overlap: float
    threshold: float | None


class Histogram(Record):
    """Counts of kept and pruned entries between ``edges`` (len(edges) = len(kept) + 1).

    ``log10`` says that the edges are base-10 logarithms of the values; entries that are exactly
    zero, or below, have no logarithm and are counted in ``zeros``.
    """

    edges: tuple[float, ...]
    kept: tuple[int, ...]
    pruned: tuple[int, ...]
    log10: bool = False
    zeros: int = 0


class PruningReport(Record):
    """What :meth:`sentei.Pruner.finish` returns: the claims of a pruned model, all measured."""

    method: str
    recipe: dict[str, Any]
    step: int
    total_steps: int
    target: float
    prunable: int
    pruned: int
    parameters: int
    zeros: int
    sites: tuple[SiteRecord, ...]
    units: tuple[UnitsRecord, ...] = ()
    updates: tuple[UpdateRecord, ...]
    weight_histogram: Histogram | None
    score_histogram: Histogram | None

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that are exactly zero."""
        return self.pruned / self.prunable

    @property
    def sparsity_all(self) -> float:
        """Fraction of all parameters that are exactly zero."""
        return self.zeros / self.parameters


class TrainPoint(Record):
    """A logged training step: mean loss since the last point, learning rate and sparsity.

    ``terms`` are those of a loss with a teacher, before their weights, on the step's last batch.
    """

    step: int
    loss: float
    terms: dict[str, float] = {}
    learning_rate: float
    sparsity: float


class EvalPoint(Record):
    """An evaluation during training; ``metrics`` maps metric name to value."""

    step: int
    sparsity: float
    metrics: dict[str, float]


class SizeRecord(Record):
    """Bytes of the weights file on disk, and what the same weights need in sparse layouts.

    The layouts are arithmetic, not files: ``bitmask`` stores one bit a prunable weight and the
    kept values, the rest dense.
    """

    dense_file: int
    sparse_file: int
    bitmask_same_dtype: int
    bitmask_half: int


class RunReport(Record):
    """A whole run: what was asked, what was done, what came out.

    ``dense`` holds the metrics of the dense model where the run measured them. ``seconds`` maps
    phase (``train``, ``evaluate``, ``dense``, ``total``) to wall-clock seconds.
    """

    sentei: str
    created: str
    title: str
    model: str
    model_type: str
    task: str
    problem: str
    metric: str
    labels: tuple[str, ...]
    train_examples: int
    eval_examples: int
    dense: dict[str, float] | None
    sparse: dict[str, float]
    pruning: PruningReport
    train: tuple[TrainPoint, ...]
    evaluations: tuple[EvalPoint, ...]
    sizes: SizeRecord
    settings: dict[str, Any]
    environment: dict[str, str]
    seconds: dict[str, float]
