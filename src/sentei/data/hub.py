"""Datasets of known tasks from the Hugging Face hub, or from its cache on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sentei.data.table import datasets_package
from sentei.tasks.catalogue import Task

Part = Literal["train", "eval"]


def load(task: Task, parts: Sequence[Part] = ("train", "eval")) -> list[tuple[Any, str]]:
    """Parts of a task's dataset, each with its name in words.

    Raises:
        ValueError: If the task is not on the hub, the hub cannot be reached, or ``datasets`` is
            not installed.
    """
    if task.hub is None:
        raise ValueError(f"task {task.name!r} is not on the hub: give files, --train and --eval.")
    hub, datasets = task.hub, datasets_package()
    name = f"{hub.path} ({hub.config})" if hub.config else hub.path
    where = {"revision": hub.revision} if hub.revision else {}
    try:
        loaded = datasets.load_dataset(hub.path, hub.config, **where)
    except (OSError, ValueError) as error:  # of huggingface_hub and the network; of datasets
        reached = not isinstance(error, ConnectionError)
        reason = "could not be loaded" if reached else "the Hugging Face hub cannot be reached"
        detail = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"task {task.name!r} needs the dataset {name} and {reason} "
            f"({type(error).__name__}: {detail}). With the same data in files or in a folder made "
            f"by save_to_disk: --task {task.name} --train FILE --eval FILE."
        ) from error
    splits = [hub.train_split if part == "train" else hub.eval_split for part in parts]
    return [(loaded[split], f"{name}, {split} split") for split in splits]
