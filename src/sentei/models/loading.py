"""A model out of a folder or off the hub: found, given a head, with its labels and tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from sentei.messages import listing, printable
from sentei.models import demo
from sentei.models.classes import placeholders, same_names
from sentei.models.folder import is_shrunk, load, transformer_folder
from sentei.models.pretrained import (
    check_size,
    class_named,
    load_config,
    make_empty,
    opening,
)
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
    where, path = f"--{option} {name}", Path(name)
    if not name.strip():
        raise ValueError(f"{where}: it is empty; give a name on the hub, a folder, or demo")
    if path.is_dir():
        for inside in (path, path / "model"):
            found = transformer_folder(inside)
            if (found / "config.json").is_file():
                return (name, name) if found == path else (str(found), str(found))
        raise ValueError(f"{where}: the folder holds no config.json{_instead(path)}")
    if path.is_file():
        raise ValueError(f"{where}: a file; name the folder that it is in")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        url = re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)", name)
        raise ValueError(f"{where}: no such folder" + (f"; name {url[1]}" if url else ""))
    return name, name


def _instead(folder: Path) -> str:
    """What may have been meant by a folder that is no model's."""
    if (folder / "adapter_config.json").is_file():
        return ", but an adapter of peft: merge it into its model with sentei.merge_adapter"
    below = sorted(file.parent.name for file in folder.glob("*/config.json"))
    return f"; there are models in {listing(below, 3)} below it: name one" if below else ""


def load_pretrained(
    folder: str | Path,
    model_class: Any,
    *,
    option: str = "",
    config: PreTrainedConfig | None = None,
    head: PreTrainedConfig | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """A model, plain or shrunk: the one place that asks which.

    Args:
        folder: Of the model, or its name on the hub.
        model_class: The class of transformers to load it as; ``AutoModel`` is the body alone. A
            shrunk model comes as what it is.
        option: The option that named it, if one did.
        config: What to take for the config of its files; None reads it.
        head: The config of the head it is to have, drawn anew where its files have none that fits.
            A shrunk model comes with its own.
        trust_remote_code: Whether code that comes with the model may be run.
        options: For ``from_pretrained``.

    Returns:
        The model, and which weights did not come from its files, as ``from_pretrained`` says it;
        nothing for a shrunk model, which loads whole or not at all.

    Raises:
        ValueError: It cannot be loaded.
    """
    # A config may name code on the hub to compute attentions: what is used is chosen here.
    options.setdefault("attn_implementation", None)
    if is_shrunk(folder):
        with errors_only():
            shrunk = load(folder, trust_remote_code=trust_remote_code, **options)
        body: Any = shrunk.base_model
        return (body if model_class is AutoModel else shrunk), {}
    if config is None:
        config = head or load_config(folder, option, trust_remote_code=trust_remote_code)
    with errors_only(), opening(folder, "model", option):  # a new head is expected
        check_size(make_empty(model_class, config, trust_remote_code=trust_remote_code), folder)
        model, info = model_class.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=head is not None,
            trust_remote_code=trust_remote_code,
            **options,
        )
    return model, info


def load_named(
    folder: str | Path,
    option: str = "",
    *,
    dtype: torch.dtype | None = torch.float32,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """A model of the class that its config names, or a body where it names none.

    Args:
        folder: Of the model, or its name on the hub.
        option: The option that named it, if one did.
        dtype: Its precision; None is that of its files.
        trust_remote_code: Whether code that comes with the model may be run.

    Returns:
        As of :func:`load_pretrained`.

    Raises:
        ValueError: It cannot be loaded.
    """
    trust: Any = {"trust_remote_code": trust_remote_code}
    config = load_config(folder, option, **trust)
    name = next(iter(config.architectures or ()), None)
    model_class = class_named(folder, config, name, **trust) if name else AutoModel
    return load_pretrained(folder, model_class, option=option, dtype=dtype, **trust)


def is_a(model: PreTrainedModel, model_class: Any) -> bool:
    """Whether a model is of a class of transformers, or of one that an ``AutoModel...`` makes."""
    mapping = getattr(model_class, "_model_mapping", None)
    return isinstance(
        model, model_class if mapping is None else mapping.get(type(model.config), ())
    )


def load_model(
    folder: str, head: Head, option: str = "model", *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, bool]:
    """The model with a head; whether all its weights came from the checkpoint.

    Raises:
        ValueError: It cannot be loaded, holds what is not finite, or has and keeps a head for
            something else.
    """
    # On a CPU, SDPA with attention dropout falls back to a path that makes a training step half as
    # long again as plain attention does.
    attention = None if torch.cuda.is_available() else "eager"
    trust: Any = {"trust_remote_code": trust_remote_code}
    config, where = load_config(folder, option, **trust, **head.config), f"--{option} {folder}"
    check_family(config, head.model_class, head.purpose, where)
    model, info = load_pretrained(
        folder,
        head.model_class,
        option=option,
        head=config,
        dtype=torch.float32,
        attn_implementation=attention,
        **trust,
    )
    if is_shrunk(folder):
        _check_head(model, head, where)
    model.config.update(dict(head.config))
    drawn = [key for name in FRESH for key in info.get(name, ())]
    fresh = [key if isinstance(key, str) else key[0] for key in drawn]
    if head.model_class is AutoModel:  # a body alone, whose pooler nothing here reads
        fresh = [name for name in fresh if "pooler" not in name]
    _check_body(fresh, model, where, alone=head.model_class is AutoModel)
    _check_finite(model, where)
    names = saved_labels(folder, option, **trust)
    return model, not fresh and _same_classes(names, head.labels)


def check_family(config: PreTrainedConfig, model_class: Any, purpose: str, where: str) -> None:
    """Refuse an architecture that has no such head.

    Args:
        config: The model's.
        model_class: The class of transformers that would give it the head.
        purpose: What the head is for, in words.
        where: The model, for the error.

    Raises:
        ValueError: It has none, in transformers or in code of its own.
    """
    known = getattr(model_class, "_model_mapping", None)
    own = getattr(config, "auto_map", None) or {}
    if known is not None and type(config) not in known and model_class.__name__ not in own:
        raise ValueError(
            f"{where}: a {printable(config.model_type)[:80]} model is none for {purpose}: "
            f"transformers has no {model_class.__name__} of it; name another model"
        )


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


def _check_body(
    fresh: Sequence[str], model: PreTrainedModel, where: str, *, alone: bool = False
) -> None:
    """Refuse a model of which more than a head, or a pooler for one, starts at random."""
    body = "" if alone else f"{model.base_model_prefix}."
    lost = [name for name in fresh if name.startswith(body) and ".pooler" not in name]
    if lost and body != ".":
        raise ValueError(
            f"{where}: {len(lost)} of its weights, {lost[0]} the first, are not in its files or "
            "have another shape there, and would start at random. The files are of another "
            "architecture than config.json says, name their weights otherwise, or are of a shrunk "
            "model, which sentei.shrink.save writes whole"
        )


def _check_finite(model: PreTrainedModel, where: str) -> None:
    """Refuse weights that nothing can be computed with."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all():
            raise ValueError(
                f"{where}: its weight {name} holds NaN or infinity: it is of a training that "
                "diverged, or damaged; take an earlier checkpoint, or get it again"
            )


def _same_classes(names: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether the classes that a model names are the data's: of other tasks a head may fit too."""
    return not labels or names == placeholders(len(names)) or same_names(names, labels)


def load_tokenizer(
    folder: str, option: str = "model", *, trust_remote_code: bool = False
) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        ValueError: It cannot be loaded, or cannot read a text.
    """
    load = partial(AutoTokenizer.from_pretrained, trust_remote_code=trust_remote_code)
    tokenizer: Tokenizer = load_processor(load, folder, "tokenizer", option)
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
        ValueError: It cannot be loaded, or cannot read a text.
    """
    with opening(folder, what, option):
        processor = load(folder)
        if isinstance(processor, Tokenizer):
            processor(_ANY_TEXT)  # damage may show only there
    return processor


_ANY_TEXT: Final = "One text, 1 \u0378"
"""With a character that no script has, for which a tokenizer needs its unknown token."""


def share_padding(model: PreTrainedModel, processor: Any) -> None:
    """Tell a model the token that its texts are padded with, where it knows none.

    A decoder with a head for classes looks for the last token before the padding.
    """
    pad = getattr(processor, "pad_token_id", None)
    if pad is not None and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad


def saved_labels(
    folder: str, option: str = "model", *, trust_remote_code: bool = False
) -> tuple[str, ...]:
    """The class names that a fine-tuned model's config carries, in its order.

    Raises:
        ValueError: The config cannot be loaded.
    """
    config: Any = load_config(folder, option, trust_remote_code=trust_remote_code)
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))


def parameter_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters, tied ones once."""
    return sum(parameter.nbytes for parameter in model.parameters())
