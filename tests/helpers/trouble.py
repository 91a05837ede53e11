"""What happens to the runs of a cluster's test, on whichever process makes them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from sentei.cli import progress
from sentei.compare.execute import Watch

FOLDER, DRIVER = "SENTEI_TEST_FOLDER", "SENTEI_TEST_DRIVER"
"""Variables of the environment: where what has happened is noted, and who is sent Ctrl-C."""

STOP, KILL = 6, 13
"""Steps of the dense run."""


def lines(say: Callable[[str], None]) -> Watch:
    """As the command's own."""
    make = progress.lines(say)
    return lambda prepared: [*make(prepared), Trouble()]


class Trouble(TrainerCallback):
    """The dense run's command is sent Ctrl-C, and later its process is killed; each once."""

    def on_step_end(self, args, state, control, **kwargs):
        if "/dense/" not in args.output_dir:
            return
        if state.global_step == KILL and once("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == STOP and once("stopped"):
            os.kill(int(os.environ[DRIVER]), signal.SIGINT)
        if STOP <= state.global_step < KILL and not Path(os.environ[FOLDER], "killed").exists():
            time.sleep(0.3)  # until the word is here


def once(what: str) -> bool:
    """Whether it has not happened yet; from now on it has."""
    note = Path(os.environ[FOLDER], what)
    if note.exists():
        return False
    note.touch()
    return True
