"""A whole run: prune a model on a task and leave a folder that explains itself.

model/           the pruned model, plain Hugging Face
recipe.yaml      what was done, complete
run.yaml         the settings, complete; --resume reads them
metrics.jsonl    loss, sparsity and metrics as they came
report.html      for people (written by the caller, from the report returned)
report.json      the same facts for machines
checkpoints/     the newest two, each a plain sparse model and the pruner's state
dense/           where dense fine-tuning came first: its model and checkpoints
"""

from __future__ import annotations

import copy
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from sentei import serialization
from sentei._version import VERSION
from sentei.data.features import ByLength, Features, check_positions
from sentei.distill import Distiller, TeacherCache
from sentei.distributed import is_main
from sentei.integrations.trainer import STATE_FILE, PruningCallback
from sentei.models.folder import MANIFEST
from sentei.models.folder import load as load_shrunk
from sentei.records import PruningReport, RunReport, SizeRecord
from sentei.run.callbacks import (
    SECONDS,
    Epochs,
    Journal,
    Milestones,
    anywhere,
    read_seconds,
    stopping_at_ctrl_c,
)
from sentei.run.prepare import Corpus, Prepared, is_shrunk, load_model, precision, share_padding
from sentei.run.saving import explained, last_checkpoint, save_model
from sentei.run.settings import Settings
from sentei.tasks.kinds import foreign


class Interrupted(Exception):
    """Training was stopped by hand; ``checkpoint`` is what it goes on from."""

    def __init__(self, checkpoint: Path, step: int, total: int) -> None:
        super().__init__(f"stopped at step {step} of {total}; {checkpoint} is complete")
        self.checkpoint = checkpoint


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
    settings, model, distiller = prepared.settings, prepared.model, None
    if prepared.teacher and not prepared.dense_steps:
        distiller = _distiller(prepared, model, prepared.teacher.model or copy.deepcopy(model))
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        if is_main():
            settings.write(out / "run.yaml")
            (out / "recipe.yaml").write_text(serialization.dump(prepared.recipe), "utf-8")
    seconds: dict[str, float] = {}
    elsewhere = 0.0  # of processes that were stopped
    dense: dict[str, float] | None = None
    if prepared.dense_steps:
        model, dense, seconds["dense"], elsewhere = _dense(prepared, out / "dense", watch)
        if prepared.teacher:
            model, teacher = _student(prepared, model)
            distiller = _distiller(prepared, model, teacher)
    elif prepared.trained_head and not prepared.recipe.schedule.found:
        dense = dict(before or evaluate(model, prepared.processor, prepared.corpus, settings))

    checkpoint = last_checkpoint(out / "checkpoints", needs=STATE_FILE) if resume else None
    pruning = PruningCallback(prepared.recipe, resume_from=checkpoint)
    journal = Journal(out / "metrics.jsonl", pruning, distiller)
    trainer = _train(
        prepared,
        model,
        out / "checkpoints",
        epochs=settings.epochs,
        checkpoint=checkpoint,
        decisions=prepared.recipe.schedule.is_update,
        callbacks=[pruning, journal, *watch],
        distiller=distiller,
    )
    seconds["train"] = journal.seconds
    assert pruning.report is not None

    save_model(trainer, out / "model")
    begun = time.perf_counter()
    model, _ = load_model(str(out / "model"), prepared.corpus)
    sparse = evaluate(model, prepared.processor, prepared.corpus, settings)
    seconds["evaluate"] = time.perf_counter() - begun
    seconds["total"] = elsewhere + journal.before + time.perf_counter() - started
    return _report(prepared, pruning.report, journal, out, dense, sparse, seconds)


def evaluate(
    model: PreTrainedModel, processor: Any, corpus: Corpus, settings: Settings
) -> dict[str, float]:
    """Metrics and mean loss of a model on the evaluation part of a corpus, in fp32.

    A loop of its own: a Trainer would prepare the model for its precision, and a later one would
    take it for prepared and train in that precision too.

    Raises:
        ValueError: The model's output is not finite, or ``max_length`` is more than it takes.
    """
    features = corpus.kind.features(corpus.evaluation, processor, training=False)
    check_positions(features, model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    return _measure(model, processor, corpus, features, settings.batch_size)


@torch.no_grad()
def _measure(
    model: PreTrainedModel, processor: Any, corpus: Corpus, features: Features, batch_size: int
) -> dict[str, float]:
    """The same where the model is, in the precision that it computes in."""
    kind = corpus.kind
    lengths = features.lengths if kind.any_order else None
    order = None if lengths is None else np.argsort(-lengths, kind="stable").tolist()
    collator = kind.collator(processor)
    batches = DataLoader(features, batch_size=batch_size, sampler=order, collate_fn=collator)
    training = model.training
    model.eval()
    said = [
        kind.said(model, {name: v.to(model.device) for name, v in batch.items()}, processor)
        for batch in batches
    ]
    model.train(training)
    loss = sum(one.loss * one.labels for one in said) / sum(one.labels for one in said)
    return {"loss": loss, **kind.measure(said, corpus.evaluation, features)}


def _dense(
    prepared: Prepared, folder: Path, watch: Sequence[TrainerCallback]
) -> tuple[PreTrainedModel, dict[str, float], float, float]:
    """Fine-tune dense, unless that is done, and read the model back from its folder.

    Also what the model gives, the seconds that training took, and those of them in processes before
    this one.
    """
    spent, elsewhere = folder / SECONDS, None
    if not (folder / "model").is_dir():
        with explained(folder):
            folder.mkdir(exist_ok=True)
        journal = Journal(folder / "metrics.jsonl", None)
        trainer = _train(
            prepared,
            prepared.model,
            folder / "checkpoints",
            epochs=prepared.settings.dense_epochs,
            checkpoint=last_checkpoint(folder / "checkpoints"),
            decisions=lambda step, total: True,
            callbacks=[journal, *watch],
        )
        if is_main():
            spent.write_text(f"{journal.seconds:.3f}\n", "utf-8")
        elsewhere = journal.before
        save_model(trainer, folder / "model")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if anywhere(trainer.saving.interrupted, trainer.args):  # too late to stop before the end
            steps = trainer.state.max_steps
            raise Interrupted(folder / "model", steps, steps)
    model, _ = load_model(str(folder / "model"), prepared.corpus)
    metrics = evaluate(model, prepared.processor, prepared.corpus, prepared.settings)
    total = read_seconds(spent)
    return model, metrics, total, total if elsewhere is None else elsewhere


def _student(prepared: Prepared, dense: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Student and teacher after dense training."""
    assert prepared.teacher is not None and prepared.recipe.distill is not None
    if prepared.teacher.model is not None:
        return dense, prepared.teacher.model
    if prepared.recipe.distill.student == "teacher":
        return copy.deepcopy(dense), dense
    set_seed(prepared.settings.seed)  # its head is drawn
    fresh, _ = load_model(prepared.folder, prepared.corpus)
    share_padding(fresh, prepared.processor)
    return fresh, dense


def _distiller(prepared: Prepared, student: PreTrainedModel, teacher: PreTrainedModel) -> Distiller:
    folder = prepared.settings.teacher_cache
    cache = TeacherCache(folder) if folder else None
    return Distiller(student, teacher, prepared.recipe.distill, cache=cache)


def _train(
    prepared: Prepared,
    model: PreTrainedModel,
    folder: Path,
    *,
    epochs: float,
    checkpoint: Path | None,
    decisions: Callable[[int, int], bool],
    callbacks: Sequence[TrainerCallback],
    distiller: Distiller | None = None,
) -> _Trainer:
    """Train; ``decisions(step, total)`` says where evaluating shows the model as decided."""
    settings = prepared.settings
    arithmetic = precision(settings)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.lr_warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        bf16=arithmetic == "bf16",
        fp16=arithmetic == "fp16",
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        eval_strategy="no",  # Milestones says when
        save_strategy="no",
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    if arguments.n_gpu > 1:
        # Or the Trainer copies the model to all of them at every step, with a batch as many times
        # as large as asked for. Several GPUs are several processes: torchrun.
        arguments._n_gpu = 1
    saving = Milestones(settings, decisions)
    lengths = prepared.train.lengths
    order = None
    if settings.group_by_length and lengths is not None:
        order = ByLength(lengths, settings.batch_size, settings.seed)
    trainer = _Trainer(
        prepared,
        order,
        saving,
        model=model,
        args=arguments,
        train_dataset=prepared.train,
        processing_class=prepared.processor,
        data_collator=prepared.corpus.kind.collator(prepared.processor),
        callbacks=[saving, Epochs(order), *callbacks],
    )
    # The Trainer leaves it to models to divide their loss by the batches of a step, where they take
    # any keyword. Most classifiers take it and do not divide: then it must.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(transformers.PrinterCallback)  # progress is shown by the caller
    with stopping_at_ctrl_c(saving), explained(folder, saving), distiller or nullcontext():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.state
    if state.global_step < state.max_steps:
        written = get_last_checkpoint(str(folder))
        raise Interrupted(Path(written or folder), state.global_step, state.max_steps)
    return trainer


class _Trainer(Trainer):
    """Evaluates by the kind of task, which may have to search, write or count whole spans."""

    def __init__(
        self, prepared: Prepared, order: ByLength | None, saving: Milestones, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.saving = saving
        self._prepared = prepared
        self._order = order

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._order is not None:
            return self._order
        return super()._get_train_sampler(train_dataset)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Through ``from_pretrained``: a file may hold weights under older names than the model's,
        which the Trainer itself would pass over.
        """
        model = model or self.model
        if is_shrunk(resume_from_checkpoint):
            found = load_shrunk(resume_from_checkpoint)
        else:
            found = type(model).from_pretrained(resume_from_checkpoint, config=model.config)
        model.load_state_dict(found.state_dict())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """With what a shrunk model's config cannot say; training does not change it."""
        super().save_model(output_dir, _internal_call)
        if is_shrunk(self._prepared.folder) and self.args.should_save:
            shutil.copyfile(
                Path(self._prepared.folder, MANIFEST),
                Path(output_dir or str(self.args.output_dir), MANIFEST),
            )

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure the model as it is."""
        prepared, model = self._prepared, self.model
        assert isinstance(model, PreTrainedModel)
        found = _measure(
            model,
            prepared.processor,
            prepared.corpus,
            prepared.evaluation,
            prepared.settings.batch_size,
        )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _report(
    prepared: Prepared,
    pruning: PruningReport,
    journal: Journal,
    out: Path,
    dense: dict[str, float] | None,
    sparse: dict[str, float],
    seconds: dict[str, float],
) -> RunReport:
    corpus, settings = prepared.corpus, prepared.settings
    hidden = {"recipe", *foreign(type(corpus.kind))}
    return RunReport(
        sentei=VERSION,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        title=f"{prepared.model_name} on {corpus.task}",
        model=prepared.model_name,
        model_type=prepared.model.config.model_type,
        task=corpus.task,
        problem=corpus.problem,
        metric=corpus.metrics[0],
        labels=corpus.train.label_names,
        train_examples=len(corpus.train),
        eval_examples=len(corpus.evaluation),
        dense=dense,
        sparse=sparse,
        pruning=pruning,
        train=journal.train,
        evaluations=journal.evaluations,
        sizes=_sizes(pruning, prepared.model, out),
        settings={
            "training data": corpus.train.source,
            "evaluation data": corpus.evaluation.source,
            **settings.model_dump(mode="json", exclude=hidden, exclude_none=True),
            **(
                {"teacher": prepared.teacher.name, "learns": prepared.teacher.match.describe()}
                if prepared.teacher
                else {"teacher": f"none: {prepared.untaught}"}
                if prepared.untaught
                else {}
            ),
        },
        environment=environment(settings),
        seconds=seconds,
    )


def environment(settings: Settings) -> dict[str, str]:
    """What the run ran on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "sentei": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "precision": precision(settings),
        "command": " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv)),
    }


def _sizes(pruning: PruningReport, model: PreTrainedModel, out: Path) -> SizeRecord:
    file = (out / "model" / "model.safetensors").stat().st_size
    dense_file = out / "dense" / "model" / "model.safetensors"
    bitmask, half = bitmask_bytes(
        sum(p.nbytes for p in model.parameters()),
        sum(p.numel() for p in model.parameters()),
        pruning.prunable,
        pruning.prunable - pruning.pruned,
        4,
    )
    return SizeRecord(
        dense_file=dense_file.stat().st_size if dense_file.is_file() else file,
        sparse_file=file,
        bitmask_same_dtype=bitmask,
        bitmask_half=half,
    )


def bitmask_bytes(
    total_bytes: int, parameters: int, prunable: int, kept: int, width: int
) -> tuple[int, int]:
    """Bytes with one bit a prunable weight and the kept values: in their dtype, and all in halves.

    Args:
        total_bytes: Of all parameters, dense.
        parameters: Their number.
        prunable: Weights in scope.
        kept: Of those, not zero.
        width: Bytes of a prunable weight.
    """
    mask = (prunable + 7) // 8
    outside = total_bytes - prunable * width
    return outside + mask + kept * width, (parameters - prunable) * 2 + mask + kept * 2
