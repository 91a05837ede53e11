"""Pruning inside an unchanged Hugging Face Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Sized
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sentei.messages import SenteiWarning
from sentei.modules import taught
from sentei.pruning.pruner import Pruner
from sentei.recipe import Recipe, check_type
from sentei.records import PruningReport

STATE_FILE = "pruner.safetensors"
"""Name of the pruner's state beside a Trainer checkpoint."""


class PruningCallback(TrainerCallback):
    """Prunes the Trainer's model while it trains: ``Trainer(..., callbacks=[PruningCallback(r)])``.

    The pruner's state is written into every checkpoint before the Trainer's own files, so a
    checkpoint that the Trainer completed is one that resumes. Logs gain ``sparsity``, the counted
    fraction of prunable weights that are zero at that step. When training reaches its last step,
    the pruner finishes and ``report`` is set.

    Args:
        recipe: What to do.
        resume_from: The checkpoint folder that training resumes from. Only needed when it is not
            below the Trainer's ``output_dir`` and not in ``args.resume_from_checkpoint``.

    Raises:
        TypeError: ``recipe`` is none.
        ValueError: When training begins: the recipe does not fit the model or the number of steps;
            ``load_best_model_at_end`` is on (the best checkpoint may be from before the target
            sparsity); ``label_smoothing_factor`` is set and the model has a teacher; or training
            resumes from a checkpoint without a pruner's state.
    """

    def __init__(self, recipe: Recipe, *, resume_from: str | Path | None = None) -> None:
        check_type(recipe)
        self.recipe = recipe
        self.resume_from = resume_from
        self.pruner: Pruner | None = None
        self.report: PruningReport | None = None
        self._saved_at = -1

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Attach to the Trainer's optimizer, or go on from a checkpoint."""
        if args.load_best_model_at_end:
            raise ValueError(
                "load_best_model_at_end=True would put back a checkpoint from before the final "
                "sparsity: switch it off; the last checkpoint is the pruned model"
            )
        if args.label_smoothing_factor and taught(kwargs["model"]):
            raise ValueError(
                f"label_smoothing_factor={args.label_smoothing_factor:g}: the Trainer then makes "
                "its own loss out of the logits, in which the teacher has no part: set it to 0, "
                "or detach the distiller"
            )
        pruner = Pruner(
            kwargs["model"],
            self.recipe,
            total_steps=state.max_steps,
            examples=_examples(kwargs.get("train_dataloader")),
        )
        if state.global_step > 0:
            pruner.load(self._state_file(args, state))
        pruner.attach(kwargs["optimizer"])
        self.pruner, self.report, self._saved_at = pruner, None, -1

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the sparsity to what is logged."""
        if logs is not None and self.pruner is not None and self.report is None:
            logs["sparsity"] = self.pruner.sparsity
            # The Trainer has put its own copy into the history before callbacks see the logs.
            if state.log_history:
                state.log_history[-1]["sparsity"] = logs["sparsity"]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the state before the Trainer writes its checkpoint."""
        if control.should_save:
            self._save(args, state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the state before the Trainer writes its checkpoint."""
        if control.should_save:
            self._save(args, state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the state where nobody had announced the checkpoint."""
        self._save(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish, if training got to its end."""
        assert self.pruner is not None
        if state.global_step < state.max_steps:
            self.pruner.detach()
            warnings.warn(
                f"training stopped at step {state.global_step} of {state.max_steps}, with the "
                f"model at sparsity {self.pruner.sparsity:.4f}: resume it, or call "
                "callback.pruner.finish() to prune to the final sparsity as it is",
                SenteiWarning,
                stacklevel=2,
            )
            return
        self.report = self.pruner.finish()

    def _save(self, args: TrainingArguments, state: TrainerState) -> None:
        if self.pruner is None or not args.should_save or self._saved_at == state.global_step:
            return
        folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
        folder.mkdir(parents=True, exist_ok=True)
        self.pruner.save(folder / STATE_FILE)
        self._saved_at = state.global_step

    def _state_file(self, args: TrainingArguments, state: TrainerState) -> Path:
        source = self.resume_from or args.resume_from_checkpoint
        folder = (
            Path(source)
            if isinstance(source, (str, Path))
            else Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
        )
        if not (folder / STATE_FILE).is_file():
            raise ValueError(
                f"training resumes at step {state.global_step}, but {folder} holds no "
                f"{STATE_FILE}: if the checkpoint lies elsewhere, name it with "
                "PruningCallback(recipe, resume_from=...); if it was written without pruning, "
                "start a new training from its model instead"
            )
        return folder / STATE_FILE


def _examples(loader: Any) -> int | None:
    """Number of training examples; None for data that does not know its length."""
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None
