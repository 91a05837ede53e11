"""Checkpoints: which are complete, what they hold beside the Trainer's files, and which stay.

Beside the model, the optimizer and the state of the Trainer and of the pruner there are

settings.yaml    the run's, which it must go on with
metrics.jsonl    the journal up to there
seconds.txt      the time that training took until then
trained_N.json   of each process: the losses since the last line of the journal
manifest.json    all of these with checksums, written last
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sentei import manifest
from sentei.distributed import is_main, processes, wait_for_all
from sentei.files import write_text
from sentei.messages import listing, short
from sentei.run.options import flat, is_path
from sentei.run.settings import Settings
from sentei.untrusted import read_json, read_text, reading

KEPT: Final = 2
"""Checkpoints that stay: the newest, and one that is complete while the next is written."""

SECONDS: Final = "seconds.txt"
JOURNAL: Final = "metrics.jsonl"
SETTINGS: Final = "settings.yaml"

Tell = Callable[[str], None]


def place(args: TrainingArguments, state: TrainerState) -> Path:
    """Folder of the checkpoint at the step where training is."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def numbered(folder: Path) -> dict[int, Path]:
    """The checkpoints below a folder by their step, the newest first."""
    found = {}
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if path.is_dir() and (match := re.fullmatch(r"[a-z]+-(0|[1-9][0-9]{0,17})", path.name)):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def newest_complete(folder: Path, tell: Tell) -> Path | None:
    """The newest complete checkpoint below a folder; None where there is none.

    Args:
        folder: Of the checkpoints.
        tell: Hears of each that is passed over, and why.
    """
    for path in numbered(folder).values():
        problems = manifest.problems(path) or _misstated(path)
        if not problems:
            return path
        tell(f"{path} is passed over: {listing(problems, 3)}")
    return None


def check_goes_on(checkpoint: Path, settings: Settings) -> None:
    """Refuse a complete checkpoint from which training would go on otherwise than it began.

    Where files lie does not matter: folders are moved.

    Raises:
        ValueError: Other settings, or another number of processes; says which.
    """
    number = read_json(checkpoint / _trained(0))["processes"]
    if number != processes():
        raise ValueError(
            f"{checkpoint}: it was trained by {number} process{'' if number == 1 else 'es'}, and "
            f"here {'is' if processes() == 1 else 'are'} {processes()}, so steps would be others: "
            f"start {number}, as with torchrun --nproc-per-node {number}, or begin a new run"
        )
    before, now = (_comparable(one) for one in (Settings.read(checkpoint / SETTINGS), settings))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{checkpoint}: it was trained with {name}={short(before.get(name))}, and the "
                f"run's settings now say {short(now.get(name))}: put back what they were, or begin "
                "a new run"
            )


def _misstated(checkpoint: Path) -> list[str]:
    """What is wrong with the states of a checkpoint whose manifest holds: somebody edited both."""
    try:
        with reading(TRAINER_STATE_NAME, "it is no state of the Trainer"):
            state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            if not 0 <= int(state.global_step) <= int(state.max_steps):
                raise ValueError(f"its step is {state.global_step} of {state.max_steps}")
            if not isinstance(state.stateful_callbacks, dict):
                raise ValueError("its callbacks are none")
        with reading(_trained(0), "it does not say what was trained"):
            trained = read_json(checkpoint / _trained(0))
            float(trained["loss"]), int(trained["logged"]), int(trained["processes"])
    except ValueError as error:
        return [str(error)]
    return []


def _comparable(settings: Settings) -> dict[str, Any]:
    """Settings by flat name, without places of files."""
    data = settings.model_dump(mode="json")
    values = {name: value for name, value in flat(data).items() if not is_path(name)}
    return values | {"recipe": data["recipe"]}


def read_seconds(path: Path) -> float:
    """The time in a :data:`SECONDS` file; 0 where there is none that could be."""
    try:
        seconds = float(read_text(path))
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < 1e9 else 0.0


def write_seconds(path: Path, seconds: float) -> None:
    """Write a :data:`SECONDS` file.

    Raises:
        OSError: It could not be written.
    """
    write_text(path, f"{seconds:.3f}\n")


class RunningLoss(TrainerCallback):
    """Takes the losses since the last logged one through a checkpoint.

    The Trainer logs their mean, and begins anew when training resumes.

    Args:
        trainer: Whose losses.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the sum of a checkpoint."""
        if state.global_step:
            trained = read_json(place(args, state) / _trained(args.process_index))
            self.trainer._tr_loss.fill_(trained["loss"])
            self.trainer._globalstep_last_logged = trained["logged"]

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the sum with a checkpoint; each process has its own."""
        trained = {
            "loss": self.trainer._tr_loss.item(),
            "logged": self.trainer._globalstep_last_logged,
            "processes": processes(),
        }
        write_text(place(args, state) / _trained(args.process_index), json.dumps(trained) + "\n")


class Completion(TrainerCallback):
    """Makes a checkpoint complete when all others have written to it: the last of callbacks.

    Args:
        settings: The run's.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say what it holds, and let older ones go."""
        folder = place(args, state)
        if is_main():
            self.settings.write(folder / SETTINGS)
        wait_for_all()
        if is_main():
            manifest.write(folder)
            _keep_newest(folder.parent, state.global_step)


def _keep_newest(folder: Path, newest: int) -> None:
    """Remove old checkpoints, those cut short, and those of a training that was passed over."""
    kept = 0
    for step, path in numbered(folder).items():
        if step <= newest and kept < KEPT and (path / manifest.MANIFEST).is_file():
            kept += 1
        else:
            shutil.rmtree(path, ignore_errors=True)


def _trained(process: int) -> str:
    return f"trained_{process}.json"
