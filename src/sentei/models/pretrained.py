"""What transformers reads of a model: one sentence where it fails, and no code run unasked."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from sentei.messages import did_you_mean, printable, short
from sentei.models.contents import (
    PACKED,
    check_contents,
    is_packed,
    quant_method,
    weight_files,
)
from sentei.untrusted import reading

SLACK: Final = 10**8
"""Numbers that a model may have beyond the bytes of its files: a head drawn anew, buffers."""

_DTYPES: Final = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@contextmanager
def opening(folder: str | Path, what: str, option: str = "") -> Iterator[None]:
    """Around whatever transformers loads of a model.

    Args:
        folder: Of the model, or its name on the hub.
        what: The part that is loaded.
        option: The option that named the model, if one did.

    Raises:
        ValueError: It cannot be loaded, or only by code of its own, and that is not trusted.
    """
    where = f"--{option} {folder}" if option else str(folder)
    check_contents(folder)
    with reading(where, _fix(Path(folder)), f"its {what} cannot be loaded"):
        try:
            yield
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"{where}: its {what} comes with code of its own, which is not run unasked; read "
                "its .py files, and if you trust them add --trust-remote-code, or in Python "
                "trust_remote_code=True"
            ) from error


def _fix(folder: Path) -> str:
    if folder.is_dir():
        return "the files in this folder are damaged or of another kind"
    fix = "check the name; without a network only folders and models in the cache load"
    above = folder.parent
    if len(folder.parts) > 1 and above.is_dir():  # a path that was mistyped looks like a name
        near = did_you_mean(folder.name, (one.name for one in above.iterdir() if one.is_dir()))
        fix = f"there is no such folder in {above} either{near or ';'} {fix}"
    return fix


def load_config(
    folder: str | Path, option: str = "", *, trust_remote_code: bool = False, **changes: Any
) -> PreTrainedConfig:
    """The config of a model.

    Args:
        folder: Of the model, or its name on the hub.
        option: The option that named it, if one did.
        trust_remote_code: Whether code that comes with the model may be run.
        changes: What it is to say instead.

    Raises:
        ValueError: It cannot be loaded, is of a quantised model, or does not name its classes.
    """
    if Path(folder).is_dir() and not Path(folder, "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: name a model's folder")
    with opening(folder, "config", option):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, **changes
        )
        by = quant_method({"quantization_config": getattr(config, "quantization_config", None)})
        if by not in (None, PACKED):
            raise ValueError(
                f"it is quantised by {short(by)}, and only plain weights are pruned: take the "
                "model as it was before"
            )
        if not all(isinstance(name, str) for name in config.architectures or ()):
            raise ValueError("its architectures are no names of classes")
        names: Any = config.id2label
        if missing := [i for i in range(len(names)) if i not in names]:
            raise ValueError(f"its id2label does not name class {missing[0]}")
    return config


def class_named(
    folder: str | Path, config: PreTrainedConfig, name: str, *, trust_remote_code: bool = False
) -> Any:
    """What loads the class that a config names: the class, or what finds it in the model's code.

    Raises:
        ValueError: It is neither in transformers nor in code that may be run.
    """
    own = getattr(config, "auto_map", None) or {}
    if trust_remote_code:
        for auto, reference in own.items():
            if auto.startswith("AutoModel") and str(reference).rpartition(".")[2] == name:
                return getattr(transformers, auto)
    found = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    hint = (
        "; it comes with code of its own, which --trust-remote-code would run"
        if own and not trust_remote_code
        else ""
    )
    raise ValueError(f"{folder}: its class, {printable(name)[:80]}, is not in transformers{hint}")


def check_size(model: PreTrainedModel, folder: str | Path) -> None:
    """Refuse a config that says a far larger model than its files can hold, before it is drawn.

    Args:
        model: What the config says, on the meta device.
        folder: Of the model.

    Raises:
        ValueError: It does.
    """
    files = weight_files(folder)
    held = sum(file.stat().st_size for file in files)
    tensors = (*model.parameters(), *model.buffers())
    if not is_packed(folder):  # whose bytes do not bound the numbers: whatever reads them does
        check_numbers(sum(tensor.numel() for tensor in tensors), held, "bytes")
    written = sum(len(_names(file)) for file in files if file.suffix == ".safetensors")
    if written and len(tensors) > 4 * written + 100:
        raise ValueError(
            f"config.json says a model of {len(tensors):,} weights, and its files have {written:,}"
        )


def check_numbers(numbers: int, held: int, what: str = "numbers") -> None:
    """Refuse a model that is far larger than what its files hold.

    Args:
        numbers: Of the model.
        held: In the files; 0 where nobody knows.
        what: Is counted there.

    Raises:
        ValueError: It is.
    """
    if held and numbers > held + SLACK:
        raise ValueError(
            f"config.json says a model of {numbers:,} numbers, and its files have {held:,} {what}"
        )


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def check_writable(model: PreTrainedModel, where: str) -> None:
    """Refuse a model whose configs transformers would refuse to write, when all work is done.

    Raises:
        ValueError: It would.
    """
    fix = "mend its config.json or generation_config.json"
    with reading(where, fix, "its config could not be written again"), TemporaryDirectory() as at:
        model.config.save_pretrained(at)
        if model.can_generate():
            model.generation_config.save_pretrained(at)


def make_empty(
    model_class: Any, config: PreTrainedConfig, *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """What a config says, on the meta device: names and shapes, in no time and no memory."""
    config = copy.deepcopy(config)
    config._attn_implementation = None  # it may name code on the hub
    with torch.device("meta"), no_init_weights():
        if hasattr(model_class, "from_config"):
            made = model_class.from_config(config, trust_remote_code=trust_remote_code)
        else:
            made = model_class._from_config(config)
    empty: PreTrainedModel = made
    return empty


def stored_dtype(folder: str | Path, config: PreTrainedConfig) -> torch.dtype:
    """The precision that most numbers of a model's files have.

    Args:
        folder: Of the model, or its name on the hub.
        config: The model's, which says it where the files are not of safetensors.

    Raises:
        ValueError: The files cannot be read.
    """
    with opening(folder, "model"):
        files = weight_files(folder)
        if not Path(folder).is_dir():
            cached = cached_file(
                str(folder), SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False
            )
            files = [Path(cached)] if cached else []
        counts = dict.fromkeys(_DTYPES.values(), 0)
        for file in files:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():
                        part = tensors.get_slice(name)
                        kind = _DTYPES.get(part.get_dtype())
                        if kind is not None:
                            counts[kind] += torch.Size(part.get_shape()).numel()
        if any(counts.values()):
            return max(counts, key=lambda kind: counts[kind])
    return config.dtype if config.dtype in counts else torch.float32
