"""Pruning inside an unchanged Hugging Face Trainer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.training_args import ParallelMode

from sentei import manifest
from sentei.distributed import wait_for_all
from sentei.files import expanded
from sentei.messages import SenteiWarning, listing
from sentei.modules import taught
from sentei.pruning.pruner import Pruner
from sentei.recipe import Recipe, check_type
from sentei.records import PruningReport
from sentei.sharded import is_sharded

STATE_FILE = "pruner.safetensors"
"""Name of the pruner's state beside a Trainer checkpoint."""


TRAINER_STATE_NAME = "trainer_state.json"
"""What the Trainer writes last."""


class PruningCallback(TrainerCallback):
    """Prunes the Trainer's model while it trains: ``Trainer(..., callbacks=[PruningCallback(r)])``.

    The pruner's state is written into every checkpoint, beside the weights, and last a manifest of
    the checkpoint's files, by which a resumed training knows that it is whole. Logs gain
    ``sparsity``, the counted fraction of prunable weights that are zero at that step. When training
    reaches its last step, the pruner finishes and ``report`` is set. A training that broke off and
    begins again, in the same Trainer or another, is pruned anew.

    Args:
        recipe: What to do.
        resume_from: The checkpoint folder that training resumes from. Only needed when it is not
            below the Trainer's ``output_dir`` and not in ``args.resume_from_checkpoint``.
        manifest: Whether checkpoints get a manifest and must have one; False leaves it to others.
        state_dtype: The pruner's, see :class:`~sentei.Pruner`.

    Raises:
        TypeError: ``recipe`` is none.
        ValueError: ``state_dtype`` is not possible. When training begins: the recipe does not fit
            the model or the number of steps; ``load_best_model_at_end`` is on (the best checkpoint
            may be from before the target sparsity); ``label_smoothing_factor`` is set and the model
            has a teacher; training resumes from a checkpoint that is not whole, or without a
            pruner's state; or another callback prunes the same model. After the first step: the
            Trainer's optimizer does not step so that it can be seen.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        resume_from: str | Path | None = None,
        manifest: bool = True,
        state_dtype: torch.dtype = torch.float32,
    ) -> None:
        check_type(recipe)
        recipe.check_state(state_dtype)
        self.recipe = recipe
        self.resume_from = resume_from
        self.manifest = manifest
        self.state_dtype = state_dtype
        self.pruner: Pruner | None = None
        self.report: PruningReport | None = None
        self._saved_at = -1
        self._sharded = False

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
        if self.pruner is not None:  # of a training that broke off
            self.pruner.detach()
        pruner = Pruner(
            kwargs["model"],
            self.recipe,
            total_steps=state.max_steps,
            examples=_examples(kwargs.get("train_dataloader")),
            state_dtype=self.state_dtype,
        )
        if state.global_step > 0:
            path = self._state_file(args, state)
            pruner.load(path)
            if pruner.step > state.global_step:  # fewer are steps that a loss scaler skipped
                raise ValueError(
                    f"{path}: it is of step {pruner.step}, and the checkpoint of step "
                    f"{state.global_step}: resume from a checkpoint as it was written"
                )
        pruner.attach(kwargs["optimizer"])
        self._sharded = any(is_sharded(weight) for weight in kwargs["model"].parameters())
        if args.parallel_mode == ParallelMode.DISTRIBUTED and not self._sharded:
            pruner.compare_masks(distributed.group.WORLD)  # the model that is given is not wrapped
        self.pruner, self.report, self._saved_at = pruner, None, -1

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse to train beside another pruner that was attached after this one."""
        if self.pruner is not None and not self.pruner.attached:
            raise ValueError(
                "another pruner has been attached to the Trainer's model after this callback's: "
                "give the Trainer one PruningCallback, and attach no pruner by hand beside it"
            )

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
        pruner, optimizer = self.pruner, kwargs.get("optimizer")
        skipped = getattr(optimizer, "step_was_skipped", False)
        if pruner is not None and not (skipped or pruner.stepped):
            raise ValueError(
                f"the Trainer's step {state.global_step} was none of the optimizer that the pruner "
                f"is attached to ({type(getattr(optimizer, 'optimizer', optimizer)).__name__}): "
                "its step() must be torch.optim.Optimizer's own or derived from it, with "
                "super().__init__ called"
            )
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
        """Write the state where nobody had announced the checkpoint, and then its manifest."""
        self._save(args, state)
        if self.pruner is None:
            return
        folder = self._beside_the_weights(args, state)
        if self.manifest:
            wait_for_all()
            if args.should_save:
                manifest.write(folder)

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
        optimizer = kwargs.get("optimizer")
        if callable(evaluated := getattr(optimizer, "eval", None)):
            evaluated()  # a schedule-free one moves the weights here, and never after
        self.report = self.pruner.finish()

    def _save(self, args: TrainingArguments, state: TrainerState) -> None:
        if self.pruner is None or self._saved_at == state.global_step:
            return
        if not (args.should_save or self._sharded):  # of shards every process gives its own
            return
        folder = _checkpoint(args, state)
        if args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
        self.pruner.save(folder / STATE_FILE)
        self._saved_at = state.global_step

    def _beside_the_weights(self, args: TrainingArguments, state: TrainerState) -> Path:
        """Where the Trainer has written the checkpoint, with the state moved there.

        In a search of hyperparameters, or where a subclass says so, that is in a folder below.
        """
        folder = _checkpoint(args, state)
        if not args.should_save or (folder / TRAINER_STATE_NAME).is_file():
            return folder
        below = Path(args.output_dir or ".").rglob(f"{folder.name}/{TRAINER_STATE_NAME}")
        written = max(below, key=lambda path: path.stat().st_mtime_ns, default=None)
        if written is None:
            raise ValueError(
                f"the Trainer has written its checkpoint neither to {folder} nor below "
                f"{folder.parent}: let it save below output_dir"
            )
        os.replace(folder / STATE_FILE, written.parent / STATE_FILE)
        folder.rmdir()
        return written.parent

    def _state_file(self, args: TrainingArguments, state: TrainerState) -> Path:
        source = self.resume_from or args.resume_from_checkpoint
        folder = expanded(source) if isinstance(source, (str, Path)) else _checkpoint(args, state)
        if not (folder / STATE_FILE).is_file():
            raise ValueError(
                f"training resumes at step {state.global_step}, but {folder} holds no "
                f"{STATE_FILE}: if the checkpoint lies elsewhere, name it with "
                "PruningCallback(recipe, resume_from=...); if it was written without pruning, "
                "start a new training from its model instead"
            )
        if self.manifest and (problems := manifest.problems(folder)):
            raise ValueError(
                f"{folder}: it is not the checkpoint that was written: {listing(problems, 3)}. "
                "Resume from another, by its path"
            )
        return folder / STATE_FILE


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Folder of the checkpoint at this step, unless the Trainer decides otherwise."""
    return Path(args.output_dir or ".", f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def _examples(loader: Any) -> int | None:
    """Number of training examples; None for data that does not know its length."""
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None
