"""Training with the Trainer: evaluated by the task, stopped by hand without loss."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from sentei.data.features import ByLength, Features
from sentei.distill import Distiller
from sentei.distributed import anywhere
from sentei.models.embeddings import freeze_embeddings_
from sentei.models.folder import copy_manifest
from sentei.models.loading import load_pretrained
from sentei.run.callbacks import Epochs, Milestones
from sentei.run.checkpoints import Completion, RunningLoss, place
from sentei.run.evaluate import metrics_of
from sentei.run.optimizers import optimizer_of, schedule_of
from sentei.run.precision import precision
from sentei.run.prepare import Prepared
from sentei.run.saving import explained
from sentei.run.settings import Training
from sentei.run.signals import status
from sentei.untrusted import reading

_NOT_OURS = "it is damaged, or of another run: take it away, and an older one is used"


class Interrupted(Exception):
    """A signal stopped training; ``checkpoint`` is what it goes on from.

    ``status`` is the exit status of a process that this signal ends.
    """

    def __init__(self, checkpoint: Path, step: int, total: int, number: int) -> None:
        super().__init__(f"stopped at step {step} of {total}; {checkpoint} is complete")
        self.checkpoint = checkpoint
        self.status = status(number)


def train(
    prepared: Prepared,
    model: PreTrainedModel,
    run: Path,
    folder: Path,
    *,
    epochs: float,
    checkpoint: Path | None,
    decisions: Callable[[int, int], bool],
    callbacks: Sequence[TrainerCallback],
    distiller: Distiller | None = None,
) -> PruningTrainer:
    """Train, or go on.

    Args:
        prepared: The run.
        model: The model.
        run: The run's folder.
        folder: Where checkpoints go.
        epochs: Passes over the data.
        checkpoint: What to go on from, one of ``folder``; None begins.
        decisions: Says of a step and the total where evaluating shows the model as decided.
        callbacks: More of the Trainer's.
        distiller: The teacher, if there is one.

    Raises:
        Interrupted: A signal asked for the end; a checkpoint was written.
        SaveError: A checkpoint could not be written.
    """
    training = prepared.settings.training
    saving = Milestones(training, decisions)
    order = _order(training, prepared.train)
    if training.freeze_embeddings:
        freeze_embeddings_(model)
    trainer = PruningTrainer(
        prepared,
        order,
        saving,
        model=model,
        args=_arguments(prepared, folder, epochs),
        train_dataset=prepared.train,
        processing_class=prepared.processor,
        data_collator=prepared.corpus.task.collator(prepared.processor),
        callbacks=[saving, Epochs(prepared.train, order), *callbacks],
        optimizer_cls_and_kwargs=optimizer_of(training),
    )
    # The Trainer leaves it to models to divide their loss by the batches of a step, where they take
    # any keyword. Most classifiers take it and do not divide: then it must.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(transformers.PrinterCallback)  # progress is shown by the caller
    trainer.add_callback(RunningLoss(trainer))
    trainer.add_callback(Completion(prepared.settings))
    listener = saving.listener
    with listener.listening(), explained(run, folder, saving), distiller or nullcontext():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if anywhere(listener.heard, trainer.args.device):
        state, number = trainer.state, listener.number or signal.SIGINT  # another process heard it
        written = place(trainer.args, state)
        raise Interrupted(written, state.global_step, state.max_steps, number)
    return trainer


def _order(training: Training, data: Features) -> ByLength | None:
    """The order of the training data where it is not drawn from all."""
    if not training.group_by_length or data.lengths is None:
        return None
    return ByLength(data.lengths, training.batch_size, training.seed)


def _arguments(prepared: Prepared, folder: Path, epochs: float) -> TrainingArguments:
    training = prepared.settings.training
    arithmetic = precision(training.precision)
    curve, numbers = schedule_of(training)
    arguments = TrainingArguments(
        output_dir=os.path.abspath(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulate,
        learning_rate=training.learning_rate,
        warmup_steps=training.lr_warmup,
        lr_scheduler_type=curve,
        lr_scheduler_kwargs=numbers,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip,
        bf16=arithmetic == "bf16",
        fp16=arithmetic == "fp16",
        use_cpu=not torch.cuda.is_available(),
        seed=training.seed,
        eval_strategy="no",  # Milestones says when
        save_strategy="no",
        save_total_limit=None,  # they go only when a newer one is complete
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=not prepared.corpus.task.refers,  # its loss uses more than its model
    )
    if arguments.n_gpu > 1:
        # Or the Trainer copies the model to all of them at every step, with a batch as many times
        # as large as asked for. Several GPUs are several processes: torchrun.
        arguments._n_gpu = 1
    return arguments


class PruningTrainer(Trainer):
    """Evaluates by the task, which may have to search, write or count whole spans."""

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

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """Not beyond the last step, where training resumes from there within an epoch."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **named)  # type: ignore[no-untyped-call]

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        """The task's, where its model has none of its own."""
        task = self._prepared.corpus.task
        if task.refers:
            return task.loss(model, inputs, self._prepared.processor)
        return super().compute_loss(model, inputs, *arguments, **named)

    def _clip_grad_norm(self, model: Any) -> Any:
        """The norm before clipping, of all gradients together in either case."""
        training = self._prepared.settings.training
        if not training.clip_each:
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        self.accelerator.unscale_gradients()
        weights = [weight for weight in model.parameters() if weight.grad is not None]
        norms = [clip_grad_norm_(weight, training.clip) for weight in weights]
        return torch.linalg.vector_norm(torch.stack(norms))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(checkpoint, _NOT_OURS):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(checkpoint, _NOT_OURS):
            super()._load_rng_state(checkpoint)

    def _load_callback_state(self) -> None:
        with reading("trainer_state.json", _NOT_OURS):
            super()._load_callback_state()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Through ``from_pretrained``: a file may hold weights under older names than the model's,
        which the Trainer itself would pass over.
        """
        model = model or self.model
        saved, _ = load_pretrained(resume_from_checkpoint, type(model), config=model.config)
        model.load_state_dict(saved.state_dict())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """With what a shrunk model's config cannot say; training does not change it."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            copy_manifest(self._prepared.folder, output_dir or str(self.args.output_dir))

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure the model as it is."""
        prepared, model = self._prepared, self.model
        assert isinstance(model, PreTrainedModel)
        values = metrics_of(
            model,
            prepared.processor,
            prepared.corpus,
            prepared.evaluation,
            prepared.settings.training.batch_size,
        )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics
