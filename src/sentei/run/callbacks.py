"""Callbacks of a run: its journal, and when it evaluates, saves and stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sentei.data.features import ByLength, Features
from sentei.distill import Distiller
from sentei.distributed import anywhere, is_main, wait_for_all
from sentei.files import append_line, sync, write_text
from sentei.integrations.trainer import PruningCallback
from sentei.records import EvalPoint, TrainPoint
from sentei.run import checkpoints
from sentei.run.checkpoints import JOURNAL, SECONDS
from sentei.run.settings import Training
from sentei.run.signals import Listener
from sentei.untrusted import parse_json, read_text


class Journal(TrainerCallback):
    """Writes ``metrics.jsonl`` as training goes, and remembers it as points.

    When training resumes, its lines are those of the checkpoint: whatever became of the file since,
    what comes after will be written again.

    Args:
        path: The file.
        pruning: Knows the sparsity; None in dense training.
        distiller: Knows the terms of the loss, where there is a teacher.
    """

    def __init__(
        self, path: Path, pruning: PruningCallback | None, distiller: Distiller | None = None
    ) -> None:
        self.path = path
        self.pruning = pruning
        self.distiller = distiller
        self.lines: list[dict[str, Any]] = []
        self.writes = True
        self.before = 0.0
        """Seconds of training in processes that were stopped, up to the checkpoint."""
        self._begun = perf_counter()

    @property
    def seconds(self) -> float:
        """Of training so far, over all processes."""
        return self.before + perf_counter() - self._begun

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
        self._begun = perf_counter()
        folder = checkpoints.place(args, state)
        if state.global_step:
            self.before = checkpoints.read_seconds(folder / SECONDS)
        self.writes = is_main()
        if not self.writes:
            return
        if state.global_step:
            text = read_text(folder / JOURNAL)
            self.lines = [parse_json(line, folder / JOURNAL) for line in text.splitlines()]
        write_text(self.path, self._text())

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the lines and the time with the checkpoint."""
        if self.writes:
            folder = checkpoints.place(args, state)
            checkpoints.write_seconds(folder / SECONDS, self.seconds)
            write_text(folder / JOURNAL, self._text())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have the lines on the disk before anything says that training is done."""
        if self.writes:
            sync(self.path)

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
            terms = self.distiller.terms if self.distiller else {}
            point = TrainPoint(
                step=state.global_step,
                loss=logs["loss"],
                terms={name: float(value) for name, value in terms.items()},
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
            metrics=plain_metrics(metrics or {}),
        )
        self._write(point.model_dump())

    def _text(self) -> str:
        return "".join(json.dumps(line) + "\n" for line in self.lines)

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if not self.writes:
            return
        append_line(self.path, json.dumps(line))


class Milestones(TrainerCallback):
    """Evaluates and saves where pruning has just decided, and stops at a signal with a checkpoint.

    Where masks are not held, a model between two decisions has regrown and tells little. ``folder``
    is the checkpoint being written.
    """

    def __init__(self, training: Training, decisions: Callable[[int, int], bool]) -> None:
        self.training = training
        self.decisions = decisions
        self.evaluate_at: set[int] = set()
        self.save_at: set[int] = set()
        self.listener = Listener()
        self.folder: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the steps."""
        evaluations = self.training.evaluations
        self.evaluate_at = self._spread(evaluations, state.max_steps) if evaluations else set()
        self.save_at = self._spread(self.training.checkpoints, state.max_steps)

    def _spread(self, times: int, total: int) -> set[int]:
        """``times`` steps, evenly, each moved to the decision before it if one is near."""
        steps = set()
        for number in range(1, times + 1):
            even = round(total * number / times)
            near = range(even, max(even - total // (2 * times), 0), -1)
            steps.add(next((step for step in near if self.decisions(step, total)), even))
        return steps | {total}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop, if asked to."""
        control.should_evaluate |= state.global_step in self.evaluate_at
        control.should_save |= state.global_step in self.save_at
        if anywhere(self.listener.heard, args.device):
            control.should_save = control.should_training_stop = True
        if control.should_save:
            self.folder = checkpoints.place(args, state)
            if is_main():  # of a training that was passed over
                shutil.rmtree(self.folder, ignore_errors=True)
            wait_for_all()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The last checkpoint is complete."""
        self.folder = None


class Epochs(TrainerCallback):
    """Tells the training data which epoch begins; a DataLoader that skips batches does not.

    Args:
        data: The training data.
        order: The order of the data, where it depends on the epoch.
    """

    def __init__(self, data: Features, order: ByLength | None = None) -> None:
        self.listeners: list[Features | ByLength] = [data] if order is None else [data, order]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell them."""
        for listener in self.listeners:
            listener.set_epoch(int(state.epoch or 0))


def plain_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Without the Trainer's prefix, clock and counters."""
    clock = ("runtime", "per_second", "epoch", "preparation_time")
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in metrics.items()
        if name.startswith("eval_") and not name.endswith(clock)
    }
