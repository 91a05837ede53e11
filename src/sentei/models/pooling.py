"""How a text's vector follows from its tokens', as sentence-transformers' files say it.

modules.json                       the modules, one after the other: Transformer, Pooling, Normalize
1_Pooling/config.json              how tokens become one vector
config_sentence_transformers.json  prompts: what is put before a text, by what the text is
sentence_bert_config.json          tokens that are read at most
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers.utils.hub import cached_file

from sentei.files import write_text
from sentei.messages import listing, short
from sentei.untrusted import read_json, reading

MODULES: Final = "modules.json"
"""Lists what a folder of sentence-transformers is made of."""

_PROMPTS: Final = "config_sentence_transformers.json"
_LIMITS: Final = "sentence_bert_config.json"
_KNOWN: Final = ("Transformer", "Pooling", "Normalize")
_PLACES: Final = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
"""Folders of the modules that are written."""

_TYPES: Final = "sentence_transformers.models"
"""The module of their classes, by the name that every version of the library finds."""


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    first = mask.argmax(-1)
    return hidden[torch.arange(len(hidden)), first]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    last = mask.shape[1] - 1 - mask.flip(1).argmax(-1)
    return hidden[torch.arange(len(hidden)), last]


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def _mean_by_root(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9).sqrt()


def _later_more(hidden: Tensor, mask: Tensor) -> Tensor:
    return _mean(hidden, mask * mask.cumsum(-1))


_POOLINGS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _later_more,
    "lasttoken": _last,
}
"""In the order in which several stand in a vector where the files do not say."""

_LEGACY: Final = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """How a text's vector follows from its tokens'."""

    modes: tuple[str, ...] = ("mean",)
    """One after the other in the vector."""

    normalize: bool = False
    longest: int | None = None
    """Tokens of a text that are read; None: as many as the model takes."""

    lower: bool = False
    prompt: str = ""
    """What is put before a text of which nothing else is said."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    """By the name of what a text is, such as query."""

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vectors, (batch, modes * hidden).

        Args:
            hidden: The last hidden state, (batch, tokens, hidden).
            mask: 1 for tokens that count, (batch, tokens).
        """
        vectors = torch.cat([_POOLINGS[mode](hidden, mask) for mode in self.modes], -1).float()
        return torch.nn.functional.normalize(vectors) if self.normalize else vectors

    def ready(self, text: str, names: tuple[str, ...] = ()) -> str:
        """A text as it is read: behind its prompt, in small letters where these are wanted.

        Args:
            text: The text.
            names: What it is; the first that has a prompt says it.
        """
        known = (self.prompts[name] for name in names if name in self.prompts)
        whole = next(known, self.prompt) + text
        return whole.lower() if self.lower else whole


@dataclass(frozen=True)
class SentenceFiles:
    """What stands around a model in a folder of sentence-transformers.

    ``types`` are the classes of the modules, the others the contents of files, as they were read.
    """

    types: tuple[str, ...] = (f"{_TYPES}.Transformer", f"{_TYPES}.Pooling")
    pooling: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, width: int) -> None:
        """Put the files beside a model, so that ``SentenceTransformer(folder)`` loads it.

        Args:
            folder: The model's.
            width: Of its hidden state.
        """
        modules = []
        for number, kind in enumerate(self.types):
            place = _PLACES[_last_name(kind)]
            modules.append({"idx": number, "name": str(number), "path": place, "type": kind})
            if place:
                (folder / place).mkdir(exist_ok=True)
        usual = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
        _write(folder / _PLACES["Pooling"] / "config.json", self.pooling or usual)
        for name, content in ((_PROMPTS, self.prompts), (_LIMITS, self.limits)):
            if content:
                _write(folder / name, content)
        _write(folder / MODULES, modules)


def _write(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")


def sentence_folder(model: str) -> Path:
    """The folder of a model's modules: the model's own, that above it, or the hub's copy.

    Args:
        model: The folder that holds its config, or its name on the hub.
    """
    folder = Path(model)
    if not folder.is_dir():
        there: Any = {"_raise_exceptions_for_missing_entries": False}
        file = cached_file(model, MODULES, **there)
        if file is None:
            return folder
        for name in (_PROMPTS, _LIMITS, f"{_PLACES['Pooling']}/config.json"):
            cached_file(model, name, **there)
        return Path(file).parent
    above = folder.absolute().parent
    own = (folder / MODULES).is_file()
    return above if not own and folder.name.startswith("0_") else folder


def read_pooling(folder: Path) -> Pooling:
    """What sentence-transformers' files say; the mean over the tokens where there are none.

    Raises:
        ValueError: They ask for what is not built here.
    """
    return read_sentence_files(folder)[0]


def read_sentence_files(folder: Path) -> tuple[Pooling, SentenceFiles]:
    """The same, and what the files hold.

    Raises:
        ValueError: They ask for what is not built here.
    """
    if not (folder / MODULES).is_file():
        return Pooling(), SentenceFiles()
    with reading(folder, "one of sentence-transformers' files is damaged; mend it"):
        return _read(folder)


def _read(folder: Path) -> tuple[Pooling, SentenceFiles]:
    modules = read_json(folder / MODULES)
    types = tuple(str(module["type"]) for module in modules)
    kinds = [_last_name(kind) for kind in types]
    twice = len(set(kinds)) < len(kinds)
    unknown = [kind for kind in kinds if kind not in _KNOWN]
    if unknown or twice or not {"Transformer", "Pooling"} <= {*kinds}:
        raise ValueError(
            f"{folder / MODULES} lists {listing(kinds)}: known are Transformer, Pooling and "
            "Normalize, once each; sentence-transformers itself runs others"
        )
    at, transformer = (
        _inside(folder, modules[kinds.index(kind)]["path"]) for kind in ("Pooling", "Transformer")
    )
    config = read_json(at / "config.json")
    settings, more = _optional(transformer / _LIMITS), _optional(folder / _PROMPTS)
    name, prompts = more.get("default_prompt_name"), more.get("prompts") or {}
    longest = settings.get("max_seq_length")
    prompt = prompts[name] if name is not None else ""
    known = [prompt, *prompts.values()]
    if not (all(isinstance(one, str) for one in known) and isinstance(longest, int | None)):
        raise ValueError(f"max_seq_length={short(longest)}, a prompt {short(prompt)}")
    pooling = Pooling(
        modes=_modes(at / "config.json", config, prompt=any(known)),
        normalize="Normalize" in kinds,
        longest=longest,
        lower=bool(settings.get("do_lower_case", False)),
        prompt=prompt,
        prompts=prompts,
    )
    return pooling, SentenceFiles(types, config, more, settings)


def _inside(folder: Path, path: str) -> Path:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{folder / MODULES}: the path {short(path)} leads out of the folder")
    return folder / path


def _modes(file: Path, config: Mapping[str, Any], *, prompt: bool) -> tuple[str, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, key in _LEGACY.items() if config.get(key)]
        known = set(_LEGACY.values())
        more = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        modes += [key for key in more if key not in known]
        modes = modes or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    unknown = [mode for mode in modes if mode not in _POOLINGS]
    if prompt and not config.get("include_prompt", True):
        unknown.append("include_prompt=false")
    if unknown:
        raise ValueError(
            f"{file}: {listing(unknown)}; known are {', '.join(_POOLINGS)}; sentence-transformers "
            "itself runs others"
        )
    return tuple(modes)


def _last_name(kind: str) -> str:
    return kind.rpartition(".")[2]


def _optional(file: Path) -> dict[str, Any]:
    """What a file says that need not be there."""
    return dict(read_json(file)) if file.is_file() else {}
