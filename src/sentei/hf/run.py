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

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

import sentei
from sentei import recipe as recipes
from sentei.hf import data, metrics
from sentei.hf.callback import STATE_FILE, PruningCallback
from sentei.hf.prepare import Corpus, Prepared, load_model, precision, token_limit
from sentei.hf.settings import Settings
from sentei.record import EvalPoint, PruningReport, RunReport, SizeRecord, TrainPoint


class Interrupted(Exception):
    """Training was stopped by hand; ``checkpoint`` is where it goes on."""

    def __init__(self, checkpoint: Path, step: int, total: int) -> None:
        super().__init__(f"stopped at step {step} of {total}; {checkpoint} is complete")
        self.checkpoint = checkpoint


class SaveError(OSError):
    """Something could not be written; nothing that was complete before is touched."""


def prune(
    prepared: Prepared, out: Path, *, resume: bool = False, watch: Sequence[TrainerCallback] = ()
) -> RunReport:
    """Prune while fine-tuning.

    Args:
        prepared: From :func:`~sentei.hf.prepare.prepare`.
        out: The run's folder; made if it does not exist.
        resume: Go on from the newest complete checkpoint in ``out``, if there is one.
        watch: Callbacks that show progress.

    Returns:
        The report; its numbers are measured on the model that was written.

    Raises:
        Interrupted: Ctrl-C; a checkpoint was written.
        SaveError: The disk is full or the folder not writable.
        ValueError: The checkpoint is of another run.
        FloatingPointError: Training diverged.
    """
    started = time.perf_counter()
    settings, model = prepared.settings, prepared.model
    with _explained(out):
        out.mkdir(parents=True, exist_ok=True)
        settings.write(out / "run.yaml")
        (out / "recipe.yaml").write_text(recipes.dump(prepared.recipe), "utf-8")
    seconds: dict[str, float] = {}

    dense: dict[str, float] | None = None
    if prepared.dense_steps:
        begun = time.perf_counter()
        model, dense = _dense(prepared, out / "dense", watch)
        seconds["dense"] = time.perf_counter() - begun
    elif prepared.trained_head:
        dense = evaluate(model, prepared.tokenizer, prepared.corpus, settings)

    checkpoint = last_checkpoint(out / "checkpoints", needs=STATE_FILE) if resume else None
    pruning = PruningCallback(prepared.recipe, resume_from=checkpoint)
    journal = Journal(out / "metrics.jsonl", pruning)
    begun = time.perf_counter()
    trainer = _train(
        prepared,
        model,
        out / "checkpoints",
        epochs=settings.epochs,
        checkpoint=checkpoint,
        decisions=prepared.recipe.schedule.is_update,
        callbacks=[pruning, journal, *watch],
    )
    seconds["train"] = time.perf_counter() - begun
    assert pruning.report is not None

    _save(trainer, out / "model")
    begun = time.perf_counter()
    model, _ = load_model(str(out / "model"), prepared.corpus)
    sparse = evaluate(model, prepared.tokenizer, prepared.corpus, settings)
    seconds["evaluate"] = time.perf_counter() - begun
    seconds["total"] = time.perf_counter() - started
    return _report(prepared, pruning.report, journal, out, dense, sparse, seconds)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    settings: Settings,
) -> dict[str, float]:
    """Metrics and mean loss of a model on the evaluation part of a corpus, in fp32.

    Raises:
        ValueError: The model's output is not finite, or ``max_length`` is more than it takes.
    """
    tokens = data.tokenise(corpus.evaluation, tokenizer, token_limit(settings, tokenizer))
    with tempfile.TemporaryDirectory() as unused:  # the Trainer wants a folder to write to
        arguments = TrainingArguments(
            output_dir=unused,
            per_device_eval_batch_size=settings.batch_size,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=_measure(corpus),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return _metrics_only(trainer.evaluate(tokens))


def last_checkpoint(folder: Path, needs: str = "trainer_state.json") -> Path | None:
    """The newest complete checkpoint below ``folder``; one cut short by a failure is passed over.

    The Trainer writes ``trainer_state.json`` last, the pruner its state first.
    """
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(found, reverse=True):
        if all((found[step] / name).is_file() for name in ("trainer_state.json", needs)):
            return found[step]
    return None


class Journal(TrainerCallback):
    """Writes ``metrics.jsonl`` as training goes, and remembers it as points.

    When training resumes, lines from after its checkpoint are dropped: they will be written again.
    """

    def __init__(self, path: Path, pruning: PruningCallback | None) -> None:
        self.path = path
        self.pruning = pruning
        self.lines: list[dict[str, Any]] = []

    @property
    def train(self) -> tuple[TrainPoint, ...]:
        """Logged training steps."""
        lines = (line for line in self.lines if "loss" in line)
        return tuple(TrainPoint.model_validate(line) for line in lines)

    @property
    def evaluations(self) -> tuple[EvalPoint, ...]:
        """Evaluations."""
        lines = (line for line in self.lines if "metrics" in line)
        return tuple(EvalPoint.model_validate(line) for line in lines)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the lines up to where training begins."""
        if state.global_step and self.path.is_file():
            lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
            self.lines = [line for line in lines if line["step"] <= state.global_step]
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self.path.write_text(text, encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """One line for a logged training step."""
        if logs and "loss" in logs:
            point = TrainPoint(
                step=state.global_step,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                sparsity=logs.get("sparsity", 0.0),
            )
            self._write(point.model_dump())

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """One line for an evaluation."""
        pruner = self.pruning.pruner if self.pruning else None
        point = EvalPoint(
            step=state.global_step,
            sparsity=pruner.sparsity if pruner else 0.0,
            metrics=_metrics_only(metrics or {}),
        )
        self._write(point.model_dump())

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class _Milestones(TrainerCallback):
    """Evaluates and saves where pruning has just decided, and stops at Ctrl-C with a checkpoint.

    Where masks are not held, a model between two decisions has regrown and tells little. ``folder``
    is the checkpoint being written.
    """

    def __init__(self, settings: Settings, decisions: Callable[[int, int], bool]) -> None:
        self.settings = settings
        self.decisions = decisions
        self.evaluate_at: set[int] = set()
        self.save_at: set[int] = set()
        self.interrupted = False
        self.folder: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the steps."""
        self.evaluate_at = self._spread(self.settings.evaluations, state.max_steps)
        self.save_at = self._spread(self.settings.checkpoints, state.max_steps)

    def _spread(self, times: int, total: int) -> set[int]:
        """``times`` steps, evenly, each moved to the decision before it if one is near."""
        chosen = set()
        for number in range(1, times + 1):
            wanted = round(total * number / times)
            near = range(wanted, max(wanted - total // (2 * times), 0), -1)
            chosen.add(next((step for step in near if self.decisions(step, total)), wanted))
        return chosen | {total}

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; a second one is not held back."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop, if asked to."""
        control.should_evaluate |= state.global_step in self.evaluate_at
        control.should_save |= state.global_step in self.save_at
        if self.interrupted and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        if control.should_save:
            self.folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The checkpoint is complete."""
        self.folder = None


def _dense(
    prepared: Prepared, folder: Path, watch: Sequence[TrainerCallback]
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Fine-tune dense, unless that is done, and read the model back from its folder."""
    if not (folder / "model").is_dir():
        with _explained(folder):
            folder.mkdir(exist_ok=True)
        trainer = _train(
            prepared,
            prepared.model,
            folder / "checkpoints",
            epochs=prepared.settings.dense_epochs,
            checkpoint=last_checkpoint(folder / "checkpoints"),
            decisions=lambda step, total: True,
            callbacks=[Journal(folder / "metrics.jsonl", None), *watch],
        )
        _save(trainer, folder / "model")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    model, _ = load_model(str(folder / "model"), prepared.corpus)
    return model, evaluate(model, prepared.tokenizer, prepared.corpus, prepared.settings)


def _train(
    prepared: Prepared,
    model: PreTrainedModel,
    folder: Path,
    *,
    epochs: float,
    checkpoint: Path | None,
    decisions: Callable[[int, int], bool],
    callbacks: Sequence[TrainerCallback],
) -> Trainer:
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
        eval_strategy="no",  # _Milestones says when
        save_strategy="no",
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    saving = _Milestones(settings, decisions)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=prepared.train,
        eval_dataset=prepared.evaluation,
        processing_class=prepared.tokenizer,
        data_collator=DataCollatorWithPadding(prepared.tokenizer),
        compute_metrics=_measure(prepared.corpus),
        callbacks=[saving, *callbacks],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # progress is shown by the caller
    with _stopping_at_ctrl_c(saving), _explained(folder, saving):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.state
    if state.global_step < state.max_steps:
        written = get_last_checkpoint(str(folder))
        raise Interrupted(Path(written or folder), state.global_step, state.max_steps)
    return trainer


def _measure(corpus: Corpus) -> Callable[[EvalPrediction], dict[str, float]]:
    def compute(prediction: EvalPrediction) -> dict[str, float]:
        return metrics.compute(corpus.metrics, prediction.predictions, prediction.label_ids)

    return compute


def _metrics_only(found: dict[str, float]) -> dict[str, float]:
    """Without the Trainer's prefix, clock and counters."""
    clock = ("runtime", "per_second", "epoch", "preparation_time")
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in found.items()
        if name.startswith("eval_") and not name.endswith(clock)
    }


def _save(trainer: Trainer, folder: Path) -> None:
    """Write the model beside its place, then move it there whole."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    with _explained(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            trainer.save_model(str(unfinished))
            (unfinished / "training_args.bin").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _stopping_at_ctrl_c(saving: _Milestones) -> Iterator[None]:
    try:
        before = signal.signal(signal.SIGINT, saving.interrupt)
    except ValueError:  # not the main thread, which alone receives signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _explained(folder: Path, saving: _Milestones | None = None) -> Iterator[None]:
    """Turn a failed write into one sentence, and remove the checkpoint it left half-written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        torn = saving.folder if saving else None
        if (saving and torn is None) or not _is_failed_write(error):
            raise
        if torn:
            shutil.rmtree(torn, ignore_errors=True)
        kept = last_checkpoint(folder) if saving else None
        rest = (
            f"; {kept} is complete: make room and go on with --resume"
            if kept
            else "; make room and start again"
        )
        reason = str(error).strip().partition("\n")[0]
        raise SaveError(f"{torn or folder} could not be written ({reason}){rest}") from error


def _is_failed_write(error: Exception) -> bool:
    """Whether a write failed: torch.save reports that as a RuntimeError of its stream."""
    streams = ("PytorchStreamWriter", "iostream", "unexpected pos")
    return not isinstance(error, RuntimeError) or any(name in str(error) for name in streams)


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
    return RunReport(
        sentei=sentei.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
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
            **{k: v for k, v in settings.model_dump(mode="json").items() if k != "recipe"},
        },
        environment=environment(settings),
        seconds=seconds,
    )


def environment(settings: Settings) -> dict[str, str]:
    """What the run ran on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "sentei": sentei.__version__,
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
