"""A whole run: prune a model on a task and leave a folder that explains itself.

model/           the pruned model, plain Hugging Face, with its card
recipe.yaml      what was done, complete
run.yaml         the settings, complete; --resume reads them
metrics.jsonl    loss, sparsity and metrics as they came
report.html      for people (written by the caller, from the report returned)
report.json      the same facts for machines
checkpoints/     the newest two, each a plain sparse model and the pruner's state
dense/           where dense fine-tuning came first: its model and checkpoints
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from transformers import PreTrainedModel, TrainerCallback

from sentei import serialization
from sentei.distill import Distiller
from sentei.distributed import anywhere, is_main
from sentei.integrations.trainer import STATE_FILE, PruningCallback
from sentei.models.loading import load_model
from sentei.records import RunReport
from sentei.run.callbacks import SECONDS, Journal, read_seconds
from sentei.run.card import write_run_card
from sentei.run.evaluate import evaluate
from sentei.run.precision import round_
from sentei.run.prepare import Prepared
from sentei.run.reporting import describe_run
from sentei.run.saving import explained, last_checkpoint, save_model
from sentei.run.training import Interrupted, train


def prune(
    prepared: Prepared,
    out: Path,
    *,
    resume: bool = False,
    watch: Sequence[TrainerCallback] = (),
    before: Mapping[str, float] | None = None,
) -> RunReport:
    """Prune while fine-tuning.

    Args:
        prepared: From :func:`~sentei.run.prepare.prepare`.
        out: The run's folder; made if it does not exist.
        resume: Go on from the newest complete checkpoint in ``out``, if there is one.
        watch: Callbacks that show progress.
        before: Metrics of the model before pruning, where they are known already; None measures
            them, if its head is trained.

    Returns:
        The report; its numbers are measured on the model that was written.

    Raises:
        Interrupted: Ctrl-C; a checkpoint was written.
        SaveError: The disk is full or the folder not writable.
        ValueError: The checkpoint is of another run.
        FloatingPointError: Training diverged.
    """
    started = time.perf_counter()
    start = _start(prepared, out, watch, before)
    checkpoint = last_checkpoint(out / "checkpoints", needs=STATE_FILE) if resume else None
    pruning = PruningCallback(prepared.recipe, resume_from=checkpoint, manifest=False)
    journal = Journal(out / "metrics.jsonl", pruning, start.distiller)
    trainer = train(
        prepared,
        start.model,
        out / "checkpoints",
        epochs=prepared.settings.training.epochs,
        checkpoint=checkpoint,
        decisions=prepared.recipe.schedule.is_update,
        callbacks=[pruning, journal, *watch],
        distiller=start.distiller,
    )
    seconds = {**start.seconds, "train": journal.seconds}
    assert pruning.report is not None

    assert trainer.model is not None
    round_(trainer.model, prepared.dtype)
    save_model(trainer, out / "model")
    evaluating = time.perf_counter()
    sparse = _metrics(prepared, _load(prepared, out / "model"))
    seconds["evaluate"] = time.perf_counter() - evaluating
    seconds["total"] = start.earlier + journal.before + time.perf_counter() - started
    report = describe_run(prepared, pruning.report, journal, out, start.dense, sparse, seconds)
    if is_main():
        with explained(out):
            write_run_card(prepared, report, out / "model")
    return report


class _Start(NamedTuple):
    """What pruning starts from.

    ``dense`` are the metrics before it, ``earlier`` the seconds of dense training in processes
    before this one.
    """

    model: PreTrainedModel
    distiller: Distiller | None = None
    dense: dict[str, float] | None = None
    seconds: Mapping[str, float] = MappingProxyType({})
    earlier: float = 0.0


def _start(
    prepared: Prepared,
    out: Path,
    watch: Sequence[TrainerCallback],
    before: Mapping[str, float] | None,
) -> _Start:
    """Make the folder, train dense where that is to come first, and bring the teacher in."""
    model, teacher, distiller, dense = prepared.model, prepared.teacher, None, None
    if teacher and not prepared.dense_steps:
        model, distiller = teacher.teach(model)
    _begin(prepared, out)
    if not prepared.dense_steps:
        if prepared.trained_head and not prepared.recipe.schedule.from_model:
            dense = dict(before or _metrics(prepared, model))
        return _Start(model, distiller, dense)
    model, dense, seconds, earlier = _train_dense(prepared, out / "dense", watch)
    if teacher:
        model, distiller = teacher.teach(model, prepared.fresh_model)
    return _Start(model, distiller, dense, {"dense": seconds}, earlier)


def _begin(prepared: Prepared, out: Path) -> None:
    """Make the run's folder and say there what the run is."""
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        if is_main():
            prepared.settings.write(out / "run.yaml")
            (out / "recipe.yaml").write_text(serialization.dump(prepared.recipe), "utf-8")


class _Dense(NamedTuple):
    """What dense training left; ``earlier`` are those of its seconds in processes before this."""

    model: PreTrainedModel
    metrics: dict[str, float]
    seconds: float
    earlier: float


def _train_dense(prepared: Prepared, folder: Path, watch: Sequence[TrainerCallback]) -> _Dense:
    """Fine-tune dense, unless that is done, and read the model back from its folder."""
    clock, earlier = folder / SECONDS, None
    if not (folder / "model").is_dir():
        with explained(folder):
            folder.mkdir(exist_ok=True)
        journal = Journal(folder / "metrics.jsonl", None)
        trainer = train(
            prepared,
            prepared.model,
            folder / "checkpoints",
            epochs=prepared.settings.training.dense_epochs,
            checkpoint=last_checkpoint(folder / "checkpoints"),
            decisions=lambda step, total: True,
            callbacks=[journal, *watch],
        )
        if is_main():
            clock.write_text(f"{journal.seconds:.3f}\n", "utf-8")
        earlier = journal.before
        save_model(trainer, folder / "model")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if anywhere(trainer.saving.interrupted, trainer.args.device):  # too late to stop before
            steps = trainer.state.max_steps
            raise Interrupted(folder / "model", steps, steps)
    model = _load(prepared, folder / "model")
    metrics = _metrics(prepared, model)
    seconds = read_seconds(clock)
    return _Dense(model, metrics, seconds, seconds if earlier is None else earlier)


def _load(prepared: Prepared, folder: Path) -> PreTrainedModel:
    """A model that the run has written."""
    trust = prepared.settings.trust_remote_code
    model, _ = load_model(str(folder), prepared.corpus.head, trust_remote_code=trust)
    return model


def _metrics(prepared: Prepared, model: PreTrainedModel) -> dict[str, float]:
    """What a model gives on the run's evaluation data."""
    batch_size = prepared.settings.training.batch_size
    return evaluate(model, prepared.processor, prepared.corpus, prepared.evaluation, batch_size)
