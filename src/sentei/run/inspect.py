"""A dry run: what a run would prune, need and write, without training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from sentei.distill.cache import FILE as CACHE_FILE
from sentei.models.embeddings import embeddings
from sentei.models.loading import parameter_bytes
from sentei.pack.folder import tables_of
from sentei.pack.sizes import predict
from sentei.parts.schedule import Schedule
from sentei.pruning.inputs import observed_bytes
from sentei.recipe import Fitted
from sentei.records import Record, SizeRecord
from sentei.report.facts import size
from sentei.run.precision import precision, state_dtype
from sentei.run.prepare import Prepared


class RoleRecord(Record):
    """Sites of one role: their number, shapes and weights."""

    role: str
    sites: int
    shapes: tuple[tuple[int, ...], ...]
    weights: int


class SkippedRecord(Record):
    """Parameters left alone for one reason: their number, weights, and the first of their names."""

    reason: str
    tensors: int
    weights: int
    examples: tuple[str, ...]


class MemoryRecord(Record):
    """Bytes while training, by what holds them; activations come on top.

    ``teacher`` is the weights of a teacher, which runs without gradients.
    """

    weights: int
    gradients: int
    optimizer: int
    pruner: int
    teacher: int

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint: weights, optimizer and pruner."""
        return self.weights + self.optimizer + self.pruner


class TeacherRecord(Record):
    """Who teaches and what: in words, the changes made for it, bytes of its answers on disk."""

    name: str
    learns: str
    notes: tuple[str, ...]
    cache_bytes: int


class Inspection(Record):
    """What a run would do.

    ``schedule`` holds (step, sparsity) at every hundredth of training; ``truncated`` is the
    fraction of training texts longer than ``max_length``, None where nothing is cut; ``features``
    says what became of the training examples where that is not one each; ``untaught`` why a recipe
    that can do without its teacher would have none; ``notes`` what is taken for granted about the
    model; ``calibration`` is how many examples are looked at where nothing is trained while
    pruning.
    """

    model: str
    model_type: str
    method: str
    task: str
    rule: str
    note: str
    prunable: int
    parameters: int
    target: float
    target_all: float
    roles: tuple[RoleRecord, ...]
    skipped: tuple[SkippedRecord, ...]
    sites: tuple[str, ...]
    train_source: str
    eval_source: str
    train_examples: int
    eval_examples: int
    labels: dict[str, int]
    truncated: float | None
    features: str
    metric: str
    precision: str
    dense_steps: int
    steps: int
    calibration: int
    updates: int
    schedule: tuple[tuple[int, float], ...]
    teacher: TeacherRecord | None
    untaught: str
    notes: tuple[str, ...]
    memory: MemoryRecord
    sizes: SizeRecord
    checkpoint_bytes: int


def inspect(prepared: Prepared) -> Inspection:
    """Describe a prepared run."""
    selection, recipe, corpus = prepared.selection, prepared.recipe, prepared.corpus
    total, schedule, memory = prepared.total_steps, recipe.schedule, _memory(prepared)
    pruned = round(selection.prunable * schedule.sparsity)
    return Inspection(
        model=prepared.model_name,
        model_type=prepared.model.config.model_type,
        method=recipe.method,
        task=corpus.name,
        rule=selection.rule,
        note=selection.note,
        prunable=selection.prunable,
        parameters=selection.parameters,
        target=schedule.sparsity,
        target_all=pruned / selection.parameters,
        roles=_roles(prepared),
        skipped=_skipped(prepared),
        sites=tuple(site.name for site in selection.sites),
        train_source=corpus.train.source,
        eval_source=corpus.evaluation.source,
        train_examples=len(corpus.train),
        eval_examples=len(corpus.evaluation),
        labels=corpus.train.counts(),
        truncated=corpus.task.truncated(prepared.train, prepared.processor),
        features=prepared.train.summary,
        metric=corpus.headline,
        precision=precision(prepared.settings.training.precision),
        dense_steps=prepared.dense_steps,
        steps=total if prepared.settings.training.epochs else 0,
        calibration=prepared.calibration,
        updates=sum(schedule.is_update(step, total) for step in range(1, total + 1)),
        schedule=_trajectory(schedule, total),
        teacher=_teacher(prepared),
        untaught=prepared.untaught,
        notes=prepared.notes,
        memory=memory,
        sizes=_sizes(prepared),
        checkpoint_bytes=memory.checkpoint,
    )


def _trajectory(schedule: Schedule, total: int) -> tuple[tuple[int, float], ...]:
    steps = sorted({round(total * i / 100) for i in range(101)})
    return tuple((step, schedule.at(step, total)) for step in steps)


def _memory(prepared: Prepared) -> MemoryRecord:
    weights = trained = parameter_bytes(prepared.model)
    training = prepared.settings.training
    if not training.epochs and not training.dense_epochs:
        trained = 0
    elif training.freeze_embeddings:
        trained -= sum(weight.nbytes for weight in embeddings(prepared.model).values())
    kept_in = state_dtype(training.state_dtype)
    fitted = Fitted(prepared.recipe, *prepared.recipe.lay_units(prepared.model), kept_in)
    observed = observed_bytes(prepared.model, prepared.selection.sites, prepared.recipe)
    return MemoryRecord(
        weights=weights,
        gradients=trained,
        optimizer=2 * trained,
        pruner=fitted.state_bytes + observed,
        teacher=prepared.teacher.bytes if prepared.teacher else 0,
    )


def _teacher(prepared: Prepared) -> TeacherRecord | None:
    teacher = prepared.teacher
    if teacher is None:
        return None
    return TeacherRecord(
        name=teacher.name,
        learns=teacher.match.describe(),
        notes=teacher.notes,
        cache_bytes=teacher.cache_bytes,
    )


def _sizes(prepared: Prepared) -> SizeRecord:
    selection, model = prepared.selection, prepared.model
    weights = selection.parameters * prepared.dtype.itemsize
    packed = predict(
        ((name, weight.to("cpu", prepared.dtype)) for name, weight in model.named_parameters()),
        tables_of(model),
        {site.name for site in selection.sites},
        prepared.recipe.schedule.sparsity,
    )
    return SizeRecord(
        dense_file=weights,
        sparse_file=weights,
        packed=packed.exact,
        packed_bf16=packed.bf16,
        packed_int8=packed.int8,
    )


def check_disk(prepared: Prepared, out: Path) -> None:
    """Refuse a disk that cannot hold the run: three checkpoints at a time, and the model.

    A teacher's answers need room on the disk of their own folder, less what is there already.

    Raises:
        ValueError: Too little is free; says how much is needed.
    """
    memory = _memory(prepared)
    needed = 3 * memory.checkpoint + 2 * memory.weights
    _check_room(out, needed, "--out", "for its checkpoints")
    folder = prepared.settings.teacher.cache
    if folder and prepared.teacher:
        present = sum(file.stat().st_size for file in folder.glob(f"{CACHE_FILE}*"))
        missing = prepared.teacher.cache_bytes - present
        _check_room(folder, missing, "--teacher-cache", "for the teacher's answers")


def _check_room(folder: Path, needed: int, option: str, purpose: str) -> None:
    parent = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ValueError(
            f"{option} {folder}: the run needs {size(needed)} of disk {purpose}, and {size(free)} "
            "are free; make room or name a folder on another disk"
        )


def _roles(prepared: Prepared) -> tuple[RoleRecord, ...]:
    roles: dict[str, list[tuple[int, ...]]] = {}
    for site in prepared.selection.sites:
        roles.setdefault(site.role, []).append(tuple(site.parameter.shape))
    return tuple(
        RoleRecord(
            role=role,
            sites=len(shapes),
            shapes=tuple(dict.fromkeys(shapes)),
            weights=sum(int(np.prod(shape)) for shape in shapes),
        )
        for role, shapes in roles.items()
    )


def _skipped(prepared: Prepared) -> tuple[SkippedRecord, ...]:
    reasons: dict[str, list[tuple[str, int]]] = {}
    for skipped in prepared.selection.skipped:
        entry = (skipped.name, int(np.prod(skipped.shape)))
        reasons.setdefault(skipped.reason, []).append(entry)
    return tuple(
        SkippedRecord(
            reason=reason,
            tensors=len(entries),
            weights=sum(weights for _, weights in entries),
            examples=tuple(name for name, _ in entries[:3]),
        )
        for reason, entries in reasons.items()
    )
