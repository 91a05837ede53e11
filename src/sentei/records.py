"""What a run leaves behind: plain records, the same facts in Python and in JSON.

Sparsity is always stated twice: over the prunable weights (the scope) and over all parameters.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class Record(BaseModel):
    """A frozen piece of a report; unknown keys are errors, and whole numbers are counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    @field_validator("*", mode="after")
    @classmethod
    def _counts(cls, value: Any) -> Any:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int) and not 0 <= number < 2**63 for number in numbers):
            raise ValueError("should be a count from 0 to 2^63")
        return value


class SiteRecord(Record):
    """One pruned tensor.

    ``layer`` is the number of its block, if any, ``role`` what its family calls it (``query``,
    ``ffn_in``, ...; the module's own name if unknown).
    """

    name: str
    layer: int | None
    role: str
    shape: tuple[int, ...]
    weights: int
    pruned: int


class UnitsRecord(Record):
    """Heads, neurons, blocks, ... of one place, and how many of them were pruned.

    ``pattern`` is the label of theirs, such as ``head`` or ``32x32``. Under an N:M pattern a unit
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

    edges: tuple[Annotated[float, Field(ge=float("-inf"))], ...]  # no NaN
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
    prunable: int = Field(ge=1)
    pruned: int
    parameters: int = Field(ge=1)
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
    """Bytes of the weights file on disk, and of the same weights packed by :mod:`sentei.pack`.

    ``packed`` keeps every number as it is; the others round those of sparse matrices and of
    embeddings.
    """

    dense_file: int
    sparse_file: int
    packed: int
    packed_bf16: int
    packed_int8: int


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
    seconds: dict[str, Seconds]


class WorkloadRecord(Record):
    """What engines were timed on: sequences in batches of one size.

    ``length`` is the number of tokens of each, ``data`` where they have the lengths of evaluation
    texts in the order of the data, ``sorted`` where those are sorted by length, or ``image``.
    ``padded`` is ``tokens`` with the padding of the batches.
    """

    batch: int
    length: str
    sequences: int
    tokens: int
    padded: int


class _OnEngine(Record):
    engine: str
    precision: str

    @property
    def label(self) -> str:
        """What tables call the engine."""
        return f"{self.engine} {self.precision}"


class EngineRecord(_OnEngine):
    """An engine at one precision: its metrics on evaluation data, and why there are none."""

    metrics: dict[str, float] = {}
    note: str = ""


class SpeedRecord(_OnEngine):
    """An engine on a workload: milliseconds a sequence, medians over interleaved rounds.

    ``clock`` is the wall's, ``low`` and ``high`` its quartiles; ``processor`` is the time of all
    threads of the process together. ``difference`` is that of the outputs from torch fp32 on the
    same inputs, relative in the L2 norm, and ``most`` the largest single one.
    """

    batch: int
    length: str
    clock: float
    low: float
    high: float
    processor: float
    difference: float
    most: float


class SpeedReport(Record):
    """A model on several engines, timed in turns in one process.

    ``sparsity`` is over the matrices of the blocks, ``sparsity_all`` over all parameters.
    ``baseline`` is the engine that speeds are multiples of, ``absent`` says what was not timed and
    why, ``words`` what follows.
    """

    sentei: str
    created: str
    model: str
    sparsity: float
    sparsity_all: float
    threads: int
    rounds: int
    baseline: str
    metric: str | None
    workloads: tuple[WorkloadRecord, ...]
    engines: tuple[EngineRecord, ...]
    speeds: tuple[SpeedRecord, ...]
    absent: tuple[str, ...]
    words: tuple[str, ...] = ()
    machine: dict[str, str]

    def milliseconds(self, speed: SpeedRecord) -> float:
        """What engines are compared by: with one thread the processor's time, else the clock's.

        The two agree on an idle machine, and the processor's does not count waiting on a busy one.
        """
        return speed.processor if self.threads == 1 else speed.clock

    def on(self, workload: WorkloadRecord) -> tuple[SpeedRecord, ...]:
        """The engines on a workload, the fastest first."""
        key = workload.batch, workload.length
        rows = [one for one in self.speeds if (one.batch, one.length) == key]
        return tuple(sorted(rows, key=self.milliseconds))


REFERENCES: Final = ("start", "dense")
"""Rows of a comparison that are no recipe: the dense model all start from, and it trained on."""


class RunEntry(Record):
    """One run of a comparison; what was not measured is None.

    ``recipe`` is ``start`` for the dense model that the others start from and ``dense`` for that
    model trained on without pruning. ``folder`` is below the comparison's; its ``report.json`` has
    ``metrics`` under ``sparse``. ``measured`` is the sparsity over the prunable weights,
    ``measured_all`` that over all parameters.
    """

    task: str
    recipe: str
    sparsity: float
    seed: int
    state: Literal["done", "failed", "missing"]
    folder: str
    value: float | None = None
    metrics: dict[str, float] = Field({})
    measured: float | None = None
    measured_all: float | None = None
    seconds: Seconds | None = None
    error: str | None = None


class Summary(Record):
    """A recipe at a task and sparsity, over its seeds.

    ``deviation`` is the sample standard deviation, None of one run. ``front`` says that no other
    recipe of this task is as sparse and as good and better in one of both. ``chosen`` is what a
    search chose for it. ``difference``, ``low`` and ``high`` are against the baseline, over
    ``pairs`` seeds that both have, with a 95 % t interval; None where there is no pair, or one.
    """

    task: str
    recipe: str
    sparsity: float
    count: int
    mean: float
    deviation: float | None
    measured: float
    front: bool
    folders: tuple[str, ...]
    chosen: dict[str, Any] = Field({})
    pairs: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Difference(Record):
    """A recipe against the baseline over all tasks and seeds that both have.

    Where ``sparsity`` is None, differences are averaged over sparsities within each task and seed
    first; ``count`` counts tasks and seeds. ``low`` to ``high`` is a 95 % t interval, None for one.
    """

    recipe: str
    sparsity: float | None
    count: int
    mean: float
    low: float | None
    high: float | None


class TrialEntry(Record):
    """One trial of a search; ``value`` is the metric on the part of the training data set aside."""

    values: dict[str, Any]
    state: Literal["done", "failed", "missing"]
    folder: str
    value: float | None = None
    error: str | None = None


class SearchEntry(Record):
    """The search of one recipe at one task; ``sparsity`` is None where it serves all.

    ``part`` is the fraction of the training data that judged the trials.
    """

    task: str
    recipe: str
    sparsity: float | None
    part: float
    chosen: dict[str, Any] | None
    trials: tuple[TrialEntry, ...]


class Comparison(Record):
    """A whole comparison; ``metrics`` maps each task to its headline metric."""

    sentei: str
    created: str
    title: str
    baseline: str
    metrics: dict[str, str]
    runs: tuple[RunEntry, ...]
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    searches: tuple[SearchEntry, ...]
    plan: dict[str, Any]
    environments: tuple[dict[str, str], ...]

    def of(self, state: str) -> tuple[RunEntry, ...]:
        """The runs in that state."""
        return tuple(run for run in self.runs if run.state == state)

    @property
    def seconds(self) -> float:
        """Of all finished runs together, wherever they ran."""
        return sum(run.seconds or 0.0 for run in self.runs)
