"""Writing so that a failure harms nothing that was complete before, and says what to do."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from transformers import PreTrainedModel, Trainer

from sentei import manifest
from sentei.distributed import is_main, wait_for_all
from sentei.files import replacing
from sentei.run.callbacks import Milestones
from sentei.run.checkpoints import numbered
from sentei.untrusted import reason

_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RIGHTS: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


class SaveError(OSError):
    """Something could not be written; nothing that was complete before is touched.

    Args:
        failure: What, and why.
        remedy: What mends it: ``make room``.
        then: How to go on after that.
    """

    def __init__(self, failure: str, remedy: str, then: str) -> None:
        super().__init__(f"{failure}; {remedy} and {then}")
        self.failure = failure
        self.remedy = remedy


def save_model(trainer: Trainer, folder: Path, run: Path) -> None:
    """Write the model beside its place, then move it there whole; of several processes one does.

    Args:
        trainer: Who has it.
        folder: Its place.
        run: The run's folder.

    Raises:
        SaveError: It could not be written.
    """
    _write(trainer.save_model, folder, run)


def save_untrained(model: PreTrainedModel, processor: Any, folder: Path, run: Path) -> None:
    """The same of a model that no trainer has.

    Args:
        model: The model.
        processor: What makes its input.
        folder: Their place.
        run: The run's folder.

    Raises:
        SaveError: They could not be written.
    """

    def save(place: str) -> None:
        model.save_pretrained(place)
        processor.save_pretrained(place)

    _write(save, folder, run)


def _write(save: Callable[[str], None], folder: Path, run: Path) -> None:
    if is_main():
        with explained(run, folder), replacing(folder) as unfinished:
            save(str(unfinished))
            (unfinished / "training_args.bin").unlink(missing_ok=True)
    wait_for_all()


@contextmanager
def explained(run: Path, folder: Path, saving: Milestones | None = None) -> Iterator[None]:
    """Turn a failed write into one sentence, and remove the checkpoint it left half-written.

    Args:
        run: The run's folder.
        folder: What is written; of a training its checkpoints.
        saving: Of a training: knows the checkpoint that is being written.

    Raises:
        SaveError: Something could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        unfinished = saving.folder if saving else None
        if (saving and unfinished is None) or not _is_failed_write(error):
            raise
        if unfinished and not (unfinished / manifest.MANIFEST).is_file():
            shutil.rmtree(unfinished, ignore_errors=True)
        then = _how_to_go_on(run, folder if saving else run / "checkpoints")
        failure = f"{unfinished or folder} could not be written ({_cause(error)})"
        raise SaveError(failure, _remedy(error), then) from error


def _how_to_go_on(run: Path, checkpoints: Path) -> str:
    if not (run / "run.yaml").is_file():
        return "start again"
    complete = (path for path in numbered(checkpoints).values() if not manifest.problems(path))
    newest = next(complete, None)
    kept = f": training goes on from {newest}, which is complete" if newest else ""
    return f"go on with --resume{kept}"


def _cause(error: Exception) -> str:
    return re.sub(r"^I/O error: | \(os error \d+\)", "", reason(error))


def _remedy(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    if number in _ROOM or (number is None and isinstance(error, RuntimeError)):
        return "make room"
    return "make it writable" if number in _RIGHTS else "mend that"


def _is_failed_write(error: Exception) -> bool:
    """Whether a write failed: torch.save reports that as a RuntimeError of its stream."""
    streams = ("PytorchStreamWriter", "iostream", "unexpected pos")
    return not isinstance(error, RuntimeError) or any(name in str(error) for name in streams)
