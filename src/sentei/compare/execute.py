"""One run: in this process, or in processes of its own that a launch command starts."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sentei import report as reports
from sentei.distributed import is_main
from sentei.records import RunReport
from sentei.run.inspect import check_disk
from sentei.run.prepare import Prepared, prepare
from sentei.run.result import finish, why_unfinished
from sentei.run.run import prune
from sentei.run.settings import Settings, is_written

Watch = Callable[[Prepared], Sequence[TrainerCallback]]
"""Makes the callbacks that watch a run."""

INTERRUPTED = 130
"""Exit status of a run that was stopped by hand and left a checkpoint."""


class RunFailed(Exception):
    """A launched run ended in an error."""


def run_here(
    folder: Path,
    settings: Settings,
    watch: Watch = lambda prepared: (),
    check: Callable[[], None] = lambda: None,
    *,
    page: bool = True,
    before: Mapping[str, float] | None = None,
    tell: Callable[[str], None] = print,
) -> RunReport:
    """Run in this process, or go on from the newest checkpoint in ``folder``.

    Args:
        folder: Of the run.
        settings: Of the run.
        watch: Makes the callbacks that watch it.
        check: Called at every step and before results are written; what it raises ends the run.
        page: Whether to draw its page, which takes seconds.
        before: Metrics of the model that it starts from, where they are known.
        tell: Hears what of an earlier process's is not used, and why.

    Raises:
        Exception: Whatever :func:`~sentei.run.prepare.prepare` and :func:`~sentei.run.run.prune`
            raise.
    """
    try:
        prepared = prepare(settings)
        check_disk(prepared, folder)
        watching = [*watch(prepared), _Check(check)]
        report = prune(prepared, folder, resume=True, watch=watching, before=before, tell=tell)
        check()
        if is_main():
            with suppress(ModuleNotFoundError):  # the page: report.json needs no extra
                finish(report, folder, page=page)
    finally:
        gc.collect()  # a Trainer refers to itself, and would keep its model for the next run
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return report


class _Check(TrainerCallback):
    """Ends a training that is not to go on, before a step is written."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.check()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.check()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.check()


def run_launched(
    launch: str, folder: Path, settings: Settings, check: Callable[[], None]
) -> RunReport:
    """Run as ``LAUNCH -m sentei.compare.child FOLDER``; its words go to ``log.txt``.

    Their standard input is a pipe from here: they end with this process, however it ends, and a
    byte asks them for a checkpoint. A signal would reach some launchers' processes twice, and those
    of others not at all.

    Args:
        launch: Such as ``accelerate launch --num_processes 2``, or ``python``.
        folder: Of the run.
        settings: Of the run.
        check: Called once a second; what it raises ends the processes.

    Raises:
        RunFailed: They ended in an error; says the last line of their words.
        KeyboardInterrupt: Ctrl-C here, after they have written a checkpoint; or there.
        ValueError: The command cannot be started.
    """
    if not is_written(settings, folder / "run.yaml"):
        settings.write(folder / "run.yaml")
    log = folder / "log.txt"
    try:
        words = [*shlex.split(launch), "-m", "sentei.compare.child", str(folder)]
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes from here, once, and not from the terminal
            )
    except (OSError, ValueError) as error:
        raise ValueError(f"--launch {launch}: cannot be started ({error})") from error
    try:
        _wait(process, check)
    except KeyboardInterrupt:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(b"s")
            process.stdin.flush()
        process.wait()
        raise
    finally:
        _end(process)
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode or why_unfinished(folder, sums=False):
        lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["nothing"]
        last = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1])
        raise RunFailed(f"{last.strip()} (exit status {process.returncode}, {log})")
    return reports.read(folder)


def _wait(process: subprocess.Popen[bytes], check: Callable[[], None]) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
            return
        check()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process and its own, and give it time to go."""
    with suppress(ProcessLookupError):
        for _ in range(50):
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.1)
