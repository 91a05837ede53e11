"""How fields are written: by the command, as flat options, and in files, with whole paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from pydantic import BeforeValidator, PlainSerializer, SerializationInfo

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


def _at_home(value: object) -> object:
    return os.path.expanduser(value) if isinstance(value, (str, Path)) else value


_HOME: Final = BeforeValidator(_at_home)

DataPath = Annotated[Path, _HOME, PlainSerializer(_path, when_used="json")]
"""A file or folder of data, or a dataset on the hub."""

ModelName = Annotated[str, _HOME, PlainSerializer(_model, when_used="json")]
"""A model on the hub, or its folder."""


def holds_path(annotation: Any) -> bool:
    """Whether a type is one of these two, or has one inside."""
    if _HOME in getattr(annotation, "__metadata__", ()):
        return True
    return any(holds_path(inner) for inner in get_args(annotation))
