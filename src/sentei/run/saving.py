"""Writing so that a failure harms nothing that was complete before, and says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import Trainer

from sentei.distributed import is_main
from sentei.files import replacing
from sentei.run.callbacks import Milestones


class SaveError(OSError):
    """Something could not be written; nothing that was complete before is touched."""


def last_checkpoint(folder: Path, needs: str = "trainer_state.json") -> Path | None:
    """The newest complete checkpoint below ``folder``; one cut short by a failure is passed over.

    The Trainer writes ``trainer_state.json`` last, the pruner its state first.
    """
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for _, checkpoint in sorted(steps.items(), reverse=True):
        if (checkpoint / needs).is_file() and _is_json(checkpoint / "trainer_state.json"):
            return checkpoint
    return None


def _is_json(path: Path) -> bool:
    """Whether a file is there, and whole."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def save_model(trainer: Trainer, folder: Path) -> None:
    """Write the model beside its place, then move it there whole; of several processes one does."""
    if is_main():
        with explained(folder), replacing(folder) as unfinished:
            trainer.save_model(str(unfinished))
            (unfinished / "training_args.bin").unlink(missing_ok=True)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def explained(folder: Path, saving: Milestones | None = None) -> Iterator[None]:
    """Turn a failed write into one sentence, and remove the checkpoint it left half-written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        unfinished = saving.folder if saving else None
        if (saving and unfinished is None) or not _is_failed_write(error):
            raise
        if unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)
        complete = last_checkpoint(folder) if saving else None
        fix = (
            f"; {complete} is complete: make room and go on with --resume"
            if complete
            else "; make room and start again"
        )
        reason = str(error).strip().partition("\n")[0]
        raise SaveError(f"{unfinished or folder} could not be written ({reason}){fix}") from error


def _is_failed_write(error: Exception) -> bool:
    """Whether a write failed: torch.save reports that as a RuntimeError of its stream."""
    streams = ("PytorchStreamWriter", "iostream", "unexpected pos")
    return not isinstance(error, RuntimeError) or any(name in str(error) for name in streams)
