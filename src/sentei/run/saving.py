"""Writing so that a failure harms nothing that was complete before, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import Trainer

from sentei.distributed import is_main
from sentei.run.callbacks import Milestones


class SaveError(OSError):
    """Something could not be written; nothing that was complete before is touched."""


def last_checkpoint(folder: Path, needs: str = "trainer_state.json") -> Path | None:
    """The newest complete checkpoint below ``folder``; one cut short by a failure is passed over.

    The Trainer writes ``trainer_state.json`` last, the pruner its state first.
    """
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(found, reverse=True):
        if (found[step] / needs).is_file() and _is_json(found[step] / "trainer_state.json"):
            return found[step]
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
        _save_model(trainer, folder)
    trainer.accelerator.wait_for_everyone()


def _save_model(trainer: Trainer, folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    with explained(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            trainer.save_model(str(unfinished))
            (unfinished / "training_args.bin").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def explained(folder: Path, saving: Milestones | None = None) -> Iterator[None]:
    """Turn a failed write into one sentence, and remove the checkpoint it left half-written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        torn = saving.folder if saving else None
        if (saving and torn is None) or not _is_failed_write(error):
            raise
        if torn:
            shutil.rmtree(torn, ignore_errors=True)
        kept = last_checkpoint(folder) if saving else None
        rest = (
            f"; {kept} is complete: make room and go on with --resume"
            if kept
            else "; make room and start again"
        )
        reason = str(error).strip().partition("\n")[0]
        raise SaveError(f"{torn or folder} could not be written ({reason}){rest}") from error


def _is_failed_write(error: Exception) -> bool:
    """Whether a write failed: torch.save reports that as a RuntimeError of its stream."""
    streams = ("PytorchStreamWriter", "iostream", "unexpected pos")
    return not isinstance(error, RuntimeError) or any(name in str(error) for name in streams)
