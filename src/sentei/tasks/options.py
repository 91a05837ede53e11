"""How fields are written: by the command, as flat options, and in files, with whole paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import PlainSerializer, SerializationInfo

from sentei.data import hub
from sentei.models.demo import DEMO

WHOLE_PATHS: Final = "whole paths"
"""Context of a dump whose files and folders hold in whatever folder it is read."""

OWN_TEACHERS: Final = ("dense", "self")
"""As teacher: what dense training makes, and the model before pruning."""


@dataclass(frozen=True)
class Option:
    """What the command says of a field, as metadata of its type.

    ``name`` is the option's, where it is not the field's. ``training`` says that a finished model
    is measured without it.
    """

    name: str = ""
    training: bool = False


def _path(path: Path, info: SerializationInfo) -> str:
    local = hub.parse(path) is None
    return os.path.abspath(path) if local and info.context == WHOLE_PATHS else str(path)


def _model(name: str, info: SerializationInfo) -> str:
    local = name not in (DEMO, *OWN_TEACHERS) and os.path.isdir(name)
    return os.path.abspath(name) if local and info.context == WHOLE_PATHS else name


DataPath = Annotated[Path, PlainSerializer(_path, when_used="json")]
"""A file or folder of data, or a dataset on the hub."""

ModelName = Annotated[str, PlainSerializer(_model, when_used="json")]
"""A model on the hub, or its folder."""
