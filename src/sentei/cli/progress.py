"""Training progress on a terminal, or a line every tenth where there is none."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sentei.run.prepare import Prepared


class ProgressBar(TrainerCallback):
    """Shows step, loss, sparsity, the newest metric and time left.

    Args:
        console: Where to.
        metric: The metric to show.
    """

    def __init__(self, console: Console, metric: str) -> None:
        self.console = console
        self.metric = metric
        self.phase, self.loss, self.sparsity, self.value = "training", "", "", ""
        self.tenths = 0
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        self.phase, self.loss, self.sparsity, self.value = "training", "", "", ""
        self.tenths = 0
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            TextColumn("{task.description:12}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        self.progress.start()
        self.task = self.progress.add_task(
            self.phase, total=state.max_steps, completed=state.global_step, facts=""
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move it."""
        if self.progress and self.task is not None:
            self.progress.update(
                self.task,
                completed=state.global_step,
                description=self.phase,
                facts=self._facts(),
            )
        elif state.global_step * 10 // state.max_steps > self.tenths:
            self.tenths = state.global_step * 10 // state.max_steps
            self.console.print(
                f"{self.phase} step {state.global_step}/{state.max_steps} {self._facts()}"
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note loss, sparsity and metric."""
        if logs and "loss" in logs:
            self.loss = f"loss {logs['loss']:.3f}"
        if logs and "sparsity" in logs:
            self.phase, self.sparsity = "pruning", f"sparsity {logs['sparsity']:.1%}"
        if logs and f"eval_{self.metric}" in logs:
            self.value = f"{self.metric} {logs[f'eval_{self.metric}']:.3f}"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, however training ended."""
        if self.progress:
            self.progress.stop()
            self.progress = None

    def _facts(self) -> str:
        return "  ".join(filter(None, [self.loss, self.sparsity, self.value]))


def lines(say: Callable[[str], None]) -> Callable[[Prepared], Sequence[TrainerCallback]]:
    """Makes what shows the progress of a run on another machine, as a line every tenth.

    Args:
        say: Hears each line.
    """
    console = Console(
        file=_Lines(say), force_terminal=False, width=_WIDTH, markup=False, highlight=False
    )
    return lambda prepared: [ProgressBar(console, prepared.corpus.headline)]


_WIDTH = 200
"""Characters of a line that is sent; the terminal that shows it has its own."""


class _Lines(io.StringIO):
    """A file whose lines are passed on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, text: str) -> int:
        """Pass on what is printed, which is whole lines."""
        for line in text.splitlines():
            if line.strip():
                self._say(line.rstrip())
        return len(text)
