"""``python -m sentei.compare.child FOLDER``: a run that a launch command starts, on every rank."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from sentei.compare.execute import INTERRUPTED, run_here
from sentei.models.quiet import quiet_transformers
from sentei.run.settings import Settings
from sentei.run.signals import raising
from sentei.run.training import Interrupted


def main(folder: Path) -> int:
    """Run what ``run.yaml`` says; the exit status."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray's processes block it
    threading.Thread(target=_listen, daemon=True).start()
    quiet_transformers()
    try:
        with raising():
            run_here(folder, Settings.read(folder / "run.yaml"))
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        print(f"Error: {' '.join(str(error).split())}", flush=True)
        return 1
    return 0


def _listen() -> None:
    """Stop with a checkpoint when the worker says so, and at once when it is gone.

    It holds the lease of this run: without it, another will run it.
    """
    while os.read(0, 1):
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
