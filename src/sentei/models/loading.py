"""A model out of a folder or off the hub: found, given a head, with its labels and tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from sentei.models import demo
from sentei.models.classes import placeholders, same_names
from sentei.models.folder import is_shrunk, load
from sentei.models.quiet import errors_only

FRESH: Final = ("missing_keys", "mismatched_keys")
"""Of what from_pretrained tells, the weights that it drew."""


@dataclass(frozen=True)
class Head:
    """What a model is to end in.

    ``model_class`` is the class of transformers that gives a checkpoint such a head, ``config``
    what the model's config must say for it, ``purpose`` what it is for, in words.
    """

    model_class: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = "this task"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes, in their order; empty where there are none."""
        return tuple(self.config.get("id2label", {}).values())


def locate_model(name: str, option: str = "model") -> tuple[str, str]:
    """What ``from_pretrained`` takes, and the name to print.

    Args:
        name: As the user gave it: of a run's folder its ``model/`` is meant.
        option: The option it was given with.

    Raises:
        ValueError: The demo's package is missing, or a path that is no model's folder.
    """
    if name == demo.DEMO:
        return str(demo.demo_model_path()), demo.NAME
    name = os.path.expanduser(name)
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        inside = path / "model"
        if (inside / "config.json").is_file():
            return str(inside), str(inside)
        hint = ""
        if (path / "adapter_config.json").is_file():
            hint = ", but an adapter of peft: merge it into its model with sentei.merge_adapter"
        raise ValueError(f"--{option} {name}: the folder holds no config.json{hint}")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~"))):
        raise ValueError(f"--{option} {name}: no such folder")
    return name, name


def load_pretrained(
    folder: str | Path, model_class: Any, *, head: Any = None, **options: Any
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """A model, plain or shrunk: the one place that asks which.

    Args:
        folder: Of the model, or its name on the hub.
        model_class: The class of transformers to load it as; ``AutoModel`` is the body alone. A
            shrunk model comes as what it is.
        head: The config of the head it is to have, drawn anew where its files have none that fits.
            A shrunk model comes with its own.
        options: For ``from_pretrained``.

    Returns:
        The model, and which weights did not come from its files, as ``from_pretrained`` says it;
        nothing for a shrunk model, which loads whole or not at all.

    Raises:
        OSError, ValueError, KeyError, ImportError, RuntimeError: It cannot be loaded.
    """
    with errors_only():  # a new head is expected, not worth a warning
        if is_shrunk(folder):
            shrunk = load(folder, **options)
            body: Any = shrunk.base_model
            return (body if model_class is AutoModel else shrunk), {}
        if head is not None:
            options |= {"config": head, "ignore_mismatched_sizes": True}
        model, info = model_class.from_pretrained(folder, output_loading_info=True, **options)
    return model, info


def is_a(model: PreTrainedModel, model_class: Any) -> bool:
    """Whether a model is of a class of transformers, or of one that an ``AutoModel...`` makes."""
    mapping = getattr(model_class, "_model_mapping", None)
    return isinstance(
        model, model_class if mapping is None else mapping.get(type(model.config), ())
    )


def load_model(folder: str, head: Head, option: str = "model") -> tuple[PreTrainedModel, bool]:
    """The model with a head; whether all its weights came from the checkpoint.

    Raises:
        ValueError: It cannot be loaded, or has and keeps a head for something else.
    """
    # On a CPU, SDPA with attention dropout falls back to a path that makes a training step half as
    # long again as plain attention does.
    attention = None if torch.cuda.is_available() else "eager"
    try:
        model, info = load_pretrained(
            folder,
            head.model_class,
            head=AutoConfig.from_pretrained(folder, **head.config),
            dtype=torch.float32,
            attn_implementation=attention,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_cannot_load(folder, "model", error, option)) from error
    _check_head(model, head, f"--{option} {folder}")
    model.config.update(dict(head.config))
    drawn = [key for name in FRESH for key in info.get(name, ())]
    fresh = [key if isinstance(key, str) else key[0] for key in drawn]
    _check_body(fresh, model, f"--{option} {folder}")
    return model, not fresh and _same_classes(saved_labels(folder, option), head.labels)


def _check_head(model: PreTrainedModel, head: Head, where: str) -> None:
    """Refuse a shrunk model with another head: it comes with its own."""
    labels = head.config.get("num_labels")
    if not is_a(model, head.model_class):
        what = f"a {type(model).__name__}, which is no model for {head.purpose}"
    elif labels not in (None, model.config.num_labels):
        what = f"made for {model.config.num_labels} labels, and the data have {labels}"
    else:
        return
    raise ValueError(
        f"{where}: it was shrunk as {what}; a head can only be exchanged before: fine-tune the "
        "model for this task, then shrink it"
    )


def _check_body(fresh: Sequence[str], model: PreTrainedModel, where: str) -> None:
    """Refuse a model of which more than a head, or a pooler for one, starts at random."""
    body = f"{model.base_model_prefix}."
    lost = [name for name in fresh if name.startswith(body) and ".pooler" not in name]
    if lost and body != ".":
        raise ValueError(
            f"{where}: {len(lost)} of its weights, {lost[0]} the first, are not in its files or "
            "have another shape there, and would start at random. The files are of another "
            "architecture than config.json says, name their weights otherwise, or are of a shrunk "
            "model, which sentei.shrink.save writes whole"
        )


def _same_classes(names: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether the classes that a model names are the data's: of other tasks a head may fit too."""
    return not labels or names == placeholders(len(names)) or same_names(names, labels)


def load_tokenizer(folder: str, option: str = "model") -> Tokenizer:
    """The model's tokenizer.

    Raises:
        ValueError: It cannot be loaded.
    """
    tokenizer: Tokenizer = load_processor(
        AutoTokenizer.from_pretrained, folder, "tokenizer", option
    )
    return tokenizer


def load_processor(
    load: Callable[[str], Any], folder: str, what: str, option: str = "model"
) -> Any:
    """What makes the model's input.

    Args:
        load: Loads it.
        folder: Of the model.
        what: What it is, such as a tokenizer.
        option: The option that named the model.

    Raises:
        ValueError: It cannot be loaded.
    """
    try:
        return load(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_cannot_load(folder, what, error, option)) from error


def share_padding(model: PreTrainedModel, processor: Any) -> None:
    """Tell a model the token that its texts are padded with, where it knows none.

    A decoder with a head for classes looks for the last token before the padding.
    """
    pad = getattr(processor, "pad_token_id", None)
    if pad is not None and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad


def saved_labels(folder: str, option: str = "model") -> tuple[str, ...]:
    """The class names that a fine-tuned model's config carries, in its order.

    Raises:
        ValueError: The config cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(_cannot_load(folder, "config", error, option)) from error
    return tuple(config.id2label[i] for i in range(config.num_labels))


def parameter_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters, tied ones once."""
    return sum(parameter.nbytes for parameter in model.parameters())


def _cannot_load(folder: str, what: str, error: Exception, option: str) -> str:
    reason = str(error).strip().partition("\n")[0]
    fix = (
        "the files in this folder are damaged or of another kind"
        if Path(folder).is_dir()
        else "check the name; without a network only folders and models in the cache load"
    )
    return f"--{option} {folder}: its {what} cannot be loaded ({reason}); {fix}"
