"""A whole run: prune a model on a task and leave a folder that explains itself.

model/           the pruned model, plain Hugging Face, with its card
recipe.yaml      what was done, complete
run.yaml         the settings, complete; --resume reads them
metrics.jsonl    loss, sparsity and metrics as they came
manifest.json    what the result is made of, with checksums; written last
report.html      for people (written by the caller, from the report returned)
report.json      the same facts for machines
checkpoints/     the newest two, each a plain sparse model and the pruner's state
dense/           where dense fine-tuning came first: its model and checkpoints
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, TrainerCallback

from sentei import manifest, serialization
from sentei.distill import Distiller
from sentei.distributed import is_main, wait_for_all
from sentei.files import sweep, write_text
from sentei.integrations.trainer import PruningCallback
from sentei.messages import SenteiWarning, listing
from sentei.models.loading import load_model
from sentei.pruning.one_shot import one_shot
from sentei.records import PruningReport, RunReport
from sentei.run.calibration import calibration_batches
from sentei.run.callbacks import Journal
from sentei.run.card import write_run_card
from sentei.run.checkpoints import (
    JOURNAL,
    SECONDS,
    Tell,
    check_goes_on,
    newest_complete,
    read_seconds,
    write_seconds,
)
from sentei.run.evaluate import evaluate
from sentei.run.precision import round_, state_dtype
from sentei.run.prepare import Prepared
from sentei.run.reporting import describe_run
from sentei.run.saving import explained, save_model, save_untrained
from sentei.run.settings import is_written
from sentei.run.training import train
from sentei.untrusted import read_text


def warn(said: str) -> None:
    """Tell of something that was not as expected."""
    warnings.warn(said, SenteiWarning, stacklevel=3)


def prune(
    prepared: Prepared,
    out: Path,
    *,
    resume: bool = False,
    watch: Sequence[TrainerCallback] = (),
    before: Mapping[str, float] | None = None,
    tell: Tell = warn,
) -> RunReport:
    """Prune while fine-tuning, or at once where the settings have no epochs.

    Args:
        prepared: From :func:`~sentei.run.prepare.prepare`.
        out: The run's folder; made if it does not exist.
        resume: Go on from the newest complete checkpoint in ``out``, if there is one.
        watch: Callbacks that show progress.
        before: Metrics of the model before pruning, where they are known already; None measures
            them, if its head is trained.
        tell: Hears what of an earlier process's is not used, and why; a warning by default.

    Returns:
        The report; its numbers are measured on the model that was written.

    Raises:
        Interrupted: A signal asked for the end; a checkpoint was written.
        SaveError: The disk is full or the folder not writable.
        ValueError: The checkpoint is of another run, or of another number of processes.
        FloatingPointError: Training diverged.
    """
    started = time.perf_counter()
    checkpoint = _checkpoint(prepared, out / "checkpoints", tell) if resume else None
    start = _start(prepared, out, watch, before, tell)
    if prepared.settings.training.epochs:
        pruned = _train_sparse(prepared, start, out, checkpoint, watch)
    else:
        pruned = _prune_at_once(prepared, start, out)
    journal, seconds = pruned.journal, {**start.seconds, **pruned.seconds}
    evaluating = time.perf_counter()
    sparse = _metrics(prepared, _load(prepared, out / "model"))
    seconds["evaluate"] = time.perf_counter() - evaluating
    seconds["total"] = start.earlier + journal.before + time.perf_counter() - started
    report = describe_run(prepared, pruned.report, journal, out, start.dense, sparse, seconds)
    if is_main():
        with explained(out, out / "model"):
            write_run_card(prepared, report, out / "model")
    return report


class _Pruned(NamedTuple):
    """What pruning left beside the model in its folder."""

    report: PruningReport
    journal: Journal
    seconds: Mapping[str, float]


def _train_sparse(
    prepared: Prepared,
    start: _Start,
    out: Path,
    checkpoint: Path | None,
    watch: Sequence[TrainerCallback],
) -> _Pruned:
    """Prune while training, and write the model."""
    pruning = PruningCallback(
        prepared.recipe,
        resume_from=checkpoint,
        manifest=False,
        state_dtype=state_dtype(prepared.settings.training.state_dtype),
    )
    journal = Journal(out / "metrics.jsonl", pruning, start.distiller)
    trainer = train(
        prepared,
        start.model,
        out,
        out / "checkpoints",
        epochs=prepared.settings.training.epochs,
        checkpoint=checkpoint,
        decisions=prepared.recipe.schedule.is_update,
        callbacks=[pruning, journal, *watch],
        distiller=start.distiller,
    )
    seconds = journal.seconds
    assert pruning.report is not None
    assert trainer.model is not None
    round_(trainer.model, prepared.dtype)
    save_model(trainer, out / "model", out)
    return _Pruned(pruning.report, journal, {"train": seconds})


def _prune_at_once(prepared: Prepared, start: _Start, out: Path) -> _Pruned:
    """Prune without training, and write the model."""
    journal = Journal(out / "metrics.jsonl", None)
    start.model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    report = one_shot(start.model, prepared.recipe, calibration_batches(prepared))
    seconds = journal.seconds
    round_(start.model, prepared.dtype)
    save_untrained(start.model, prepared.processor, out / "model", out)
    return _Pruned(report, journal, {"prune": seconds})


def _checkpoint(prepared: Prepared, folder: Path, tell: Tell) -> Path | None:
    """The newest complete checkpoint, from which training must go on as it began."""
    checkpoint = newest_complete(folder, tell)
    if checkpoint:
        check_goes_on(checkpoint, prepared.settings)
    return checkpoint


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
    tell: Tell,
) -> _Start:
    """Make the folder, train dense where that is to come first, and bring the teacher in."""
    model, teacher, distiller, dense = prepared.model, prepared.teacher, None, None
    prepared.references.ask(prepared.settings, model, prepared.train, prepared.evaluation)
    if teacher and not prepared.dense_steps:
        model, distiller = teacher.teach(model)
    _begin(prepared, out)
    if not prepared.dense_steps:
        if prepared.trained_head and not prepared.recipe.schedule.from_model:
            dense = dict(before or _metrics(prepared, model))
        return _Start(model, distiller, dense)
    model, dense, seconds, earlier = _train_dense(prepared, out, watch, tell)
    if teacher:
        model, distiller = teacher.teach(model, prepared.fresh_model)
    return _Start(model, distiller, dense, {"dense": seconds}, earlier)


def _begin(prepared: Prepared, out: Path) -> None:
    """Make the run's folder and say there what the run is."""
    with explained(out, out):
        out.mkdir(parents=True, exist_ok=True)
        if is_main():
            sweep(out)
            if not is_written(prepared.settings, out / "run.yaml"):
                prepared.settings.write(out / "run.yaml")
            _tell_recipe(serialization.dump(prepared.recipe), out / "recipe.yaml")


def _tell_recipe(text: str, path: Path) -> None:
    """Write the recipe where it is not told already, whole and as it is done."""
    try:
        if read_text(path) == text:
            return
    except ValueError:
        pass
    write_text(path, text)


class _Dense(NamedTuple):
    """What dense training left; ``earlier`` are those of its seconds in processes before this."""

    model: PreTrainedModel
    metrics: dict[str, float]
    seconds: float
    earlier: float


def _train_dense(
    prepared: Prepared, out: Path, watch: Sequence[TrainerCallback], tell: Tell
) -> _Dense:
    """Fine-tune dense, unless that is done, and read the model back from its folder."""
    folder = out / "dense"
    clock, earlier = folder / SECONDS, None
    if not _is_done(folder, tell):
        with explained(out, folder):
            folder.mkdir(exist_ok=True)
        journal = Journal(folder / JOURNAL, None)
        trainer = train(
            prepared,
            prepared.model,
            out,
            folder / "checkpoints",
            epochs=prepared.settings.training.dense_epochs,
            checkpoint=_checkpoint(prepared, folder / "checkpoints", tell),
            decisions=lambda step, total: True,
            callbacks=[journal, *watch],
        )
        earlier = journal.before
        save_model(trainer, folder / "model", out)
        if is_main():
            with explained(out, folder):
                sweep(folder)
                write_seconds(clock, journal.seconds)
                manifest.write(folder, ["model"])
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        wait_for_all()
    model = _load(prepared, folder / "model")
    metrics = _metrics(prepared, model)
    seconds = read_seconds(clock)
    return _Dense(model, metrics, seconds, seconds if earlier is None else earlier)


def _is_done(dense: Path, tell: Tell) -> bool:
    """Whether dense training has left its model, and that is as it was written."""
    if not (dense / manifest.MANIFEST).is_file():
        return False
    problems = manifest.problems(dense)
    if problems:
        tell(f"{dense} is passed over, and dense training done again: {listing(problems, 3)}")
    return not problems


def _load(prepared: Prepared, folder: Path) -> PreTrainedModel:
    """A model that the run has written."""
    trust = prepared.settings.trust_remote_code
    model, _ = load_model(str(folder), prepared.corpus.head, trust_remote_code=trust)
    return model


def _metrics(prepared: Prepared, model: PreTrainedModel) -> dict[str, float]:
    """What a model gives on the run's evaluation data."""
    batch_size = prepared.settings.training.batch_size
    return evaluate(model, prepared.processor, prepared.corpus, prepared.evaluation, batch_size)
