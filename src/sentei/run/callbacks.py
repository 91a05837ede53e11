"""Callbacks of a run: its journal, and when it evaluates, saves and stops."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sentei.data.features import ByLength, Features
from sentei.distill import Distiller
from sentei.distributed import anywhere, is_main
from sentei.integrations.trainer import PruningCallback
from sentei.records import EvalPoint, TrainPoint
from sentei.run.settings import Training

SECONDS: Final = "seconds.txt"
"""File of a checkpoint with the time that training took until then."""


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def read_seconds(path: Path) -> float:
    """The time in a :data:`SECONDS` file; 0 where there is none, or a failure cut it short."""
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, without a last one that a failure cut short."""
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in whole]


class Journal(TrainerCallback):
    """Writes ``metrics.jsonl`` as training goes, and remembers it as points.

    When training resumes, lines from after its checkpoint are dropped: they will be written again.

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
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of training so far, over all processes."""
        return self.before + time.perf_counter() - self._begun

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
        self._begun = time.perf_counter()
        if state.global_step:
            self.before = read_seconds(_checkpoint(args, state) / SECONDS)
        self.writes = is_main()
        if not self.writes:
            return
        if state.global_step and self.path.is_file():
            lines = _read_lines(self.path)
            self.lines = [line for line in lines if line["step"] <= state.global_step]
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self.path.write_text(text, encoding="utf-8")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the time with the checkpoint, before the Trainer completes it."""
        if control.should_save and self.writes:
            folder = _checkpoint(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SECONDS).write_text(f"{self.seconds:.3f}\n", "utf-8")

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

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Milestones(TrainerCallback):
    """Evaluates and saves where pruning has just decided, and stops at Ctrl-C with a checkpoint.

    Where masks are not held, a model between two decisions has regrown and tells little. ``folder``
    is the checkpoint being written.
    """

    def __init__(self, training: Training, decisions: Callable[[int, int], bool]) -> None:
        self.training = training
        self.decisions = decisions
        self.evaluate_at: set[int] = set()
        self.save_at: set[int] = set()
        self.interrupted = False
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
        self.interrupted = anywhere(self.interrupted, args.device)
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


@contextmanager
def stopping_at_ctrl_c(saving: Milestones) -> Iterator[None]:
    """Hand Ctrl-C to ``saving`` while training lasts."""
    try:
        before = signal.signal(signal.SIGINT, saving.interrupt)
    except ValueError:  # not the main thread, which alone receives signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def plain_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Without the Trainer's prefix, clock and counters."""
    clock = ("runtime", "per_second", "epoch", "preparation_time")
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in metrics.items()
        if name.startswith("eval_") and not name.endswith(clock)
    }
