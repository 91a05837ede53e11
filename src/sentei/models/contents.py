"""What a model's folder holds, looked at before the code of others reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from sentei.messages import short
from sentei.untrusted import read_json, reading

MOST_LAYERS: Final = 400
"""In a model: above it a config is damaged, and building what it says would take long."""

MOST_LABELS: Final = 10**5
"""In a config's ``num_labels``, which makes a name of each."""

PACKED: Final = "sentei"
"""The ``quant_method`` in the config of a packed model, which :mod:`sentei.pack` reads."""

_SETTINGS: Final = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("preprocessor_config.json", "processor_config.json", "modules.json"),
)
_LAYERS = re.compile(r"(layers?|depths?|blocks?)$")
_COUNTS = re.compile(r"(num|n)_")
_DISTRIBUTED = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")


def check_contents(folder: str | Path) -> None:
    """Refuse a folder that is no plain model's; a name on the hub passes.

    Raises:
        ValueError: A file would be waited for, settings are damaged or ask for what no model is,
            or weights are an adapter's, or elsewhere.
    """
    path = Path(folder)
    if not path.is_dir():
        return
    with reading(path, "it must be a folder that you may read"):
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    for file in files:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise ValueError(f"{file}: it is no plain file, and reading it may not end; remove it")
        if _DISTRIBUTED.fullmatch(file.name):
            raise ValueError(
                f"{file}: a part of a checkpoint of several processes; write the model with "
                "save_pretrained, and name that folder"
            )
        if file.name in _SETTINGS and file.is_file():
            _check_numbers(file, read_json(file))
    if (path / "config.json").is_file() and (path / "adapter_config.json").is_file():
        raise ValueError(
            f"{path / 'adapter_config.json'}: an adapter of peft lies beside the model; merge it "
            "into the model with sentei.merge_adapter, or remove it"
        )
    weight_files(path)


def is_packed(folder: str | Path) -> bool:
    """Whether a folder's config says that its model is packed; False of a name on the hub.

    Raises:
        ValueError: The config is damaged.
    """
    file = Path(folder, "config.json")
    return file.is_file() and quant_method(read_json(file)) == PACKED


def quant_method(config: Any) -> Any:
    """The name of what a model is quantised by, as its config says; None where it is by nothing."""
    quantised = config.get("quantization_config") if isinstance(config, dict) else None
    return quantised.get("quant_method", quantised) if isinstance(quantised, dict) else quantised


def weight_files(folder: str | Path) -> list[Path]:
    """The files that ``from_pretrained`` reads the weights of a folder from; none for a hub name.

    Raises:
        ValueError: An index of them is damaged, or names what is not in the folder.
    """
    path = Path(folder)
    for name, index in (
        (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME),
        (WEIGHTS_NAME, WEIGHTS_INDEX_NAME),
    ):
        if (path / name).is_file():
            return [path / name]
        if (path / index).is_file():
            return _shards(path / index)
    return []


def _shards(index: Path) -> list[Path]:
    entries = read_json(index)
    with reading(index, "it must name the file of each weight under weight_map"):
        names = sorted({Path(name) for name in entries["weight_map"].values()})
    for name in names:
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(
                f"{index}: it names {short(str(name))}, which is not in this folder; put the files "
                "of the weights beside it"
            )
        if not (index.parent / name).is_file():
            raise ValueError(
                f"{index}: it names {short(str(name))}, which is missing; get the whole model again"
            )
    return [index.parent / name for name in names]


def _check_numbers(file: Path, settings: Any) -> None:
    """Refuse numbers that are none, or for which a config alone would fill the memory."""
    for key, value in _entries(settings):
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{file}: {short(key)} is not a number; it is damaged")
        most = MOST_LABELS if key == "num_labels" else MOST_LAYERS if _LAYERS.search(key) else None
        if not isinstance(value, int):
            continue
        if most is not None and value > most:
            raise ValueError(
                f"{file}: {short(key)} is {short(value)}, and at most {most:,} are built; it is "
                "damaged"
            )
        if value < 0 and _COUNTS.match(key):
            raise ValueError(f"{file}: {short(key)} is {short(value)}; it is damaged")


def _entries(settings: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value, with the nearest key above it."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            yield from _entries(value, name)
    elif isinstance(settings, list):
        for value in settings:
            yield from _entries(value, key)
    else:
        yield key, settings
