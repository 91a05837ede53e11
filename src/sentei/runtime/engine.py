"""An engine: a model of its own, whose encoder the core runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from sentei import families
from sentei.messages import listing
from sentei.models.loading import FRESH, load_named, load_tokenizer, locate_model
from sentei.models.pooling import Pooling, read_pooling
from sentei.models.pretrained import load_config
from sentei.pack.loading import leaving_packed
from sentei.runtime.encoder import Array
from sentei.runtime.forward import Built, Fallback, Forward, Options
from sentei.runtime.reading import base_of, drop_blocks_, is_product, prefix_of
from sentei.runtime.texts import Prediction, Text, embed, predict
from sentei.runtime.twin import twin


def compile(
    model: PreTrainedModel | str | Path,
    precision: str = "auto",
    threads: int | None = None,
    fallback: Fallback | None = None,
    *,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
) -> Engine:
    """Make an engine of a model.

    Args:
        model: A model of transformers, which stays as it is, or a folder: of a run, of a model,
            shrunk or not, or of sentence-transformers. From a folder the weights are held once; of
            a model the engine shares embeddings and head, and is made anew where its weights
            change, as :func:`sentei.runtime.install` says.
        precision: ``fp32``, ``bf16``, ``int8``, or ``auto`` for the fastest that the CPU has.
        threads: Threads of one call, at most; by default the cores that the process may use.
        fallback: ``torch`` to have torch run what the engine cannot: the model, with a warning, or
            single calls, such as with ``output_attentions=True``. None raises instead.
        tokenizer: For ``predict`` and ``embed``; by default the folder's.
        trust_remote_code: Whether code that comes with the folder may be run.

    Raises:
        Unsupported: The engine cannot run the model on this machine, and ``fallback`` is None.
        ValueError: The folder holds no model.
    """
    options = Options(precision, threads, fallback)
    if isinstance(model, PreTrainedModel):
        return Engine(twin(model), options, tokenizer)
    if isinstance(model, nn.Module):
        raise ValueError(
            f"a {type(model).__name__} is no model of transformers: give the one inside, or put "
            "the engine under it with sentei.runtime.installation"
        )
    folder, inside = _locate(str(model))
    loaded = _load(inside, whole=fallback is not None, trust_remote_code=trust_remote_code)
    origin = _Origin(folder, inside, trust_remote_code)
    engine = Engine(loaded, options, tokenizer, origin=origin)
    if fallback is None:
        engine._release()
    return engine


@dataclass(frozen=True)
class _Origin:
    """Where an engine's model is from: the folder as given, and what holds its config in it."""

    folder: Path
    inside: str
    trust_remote_code: bool


class Engine:
    """A model whose encoder runs in the core; made by :func:`compile`.

    One engine serves many threads at a time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        options: Options,
        tokenizer: Any = None,
        *,
        origin: _Origin | None = None,
    ) -> None:
        self.model = model.eval()
        """Embeddings, pooler and head, with the encoder's place taken."""

        self._origin, self._tokenizer = origin, tokenizer
        self._pooling: Pooling | None = None
        self._closed = False
        base: Any = model.base_model
        self._forward = Forward(base, prefix_of(model), options)
        self._built: Built | None = self._forward.start()
        vars(base)["forward"] = self._forward

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        """What the model returns for these inputs: tensors, arrays or lists."""
        self._check_open()
        with torch.inference_mode():
            return self.model(
                *map(_tensor, arguments), **{key: _tensor(one) for key, one in inputs.items()}
            )

    def predict(self, texts: Sequence[Text], batch_size: int = 32) -> list[Prediction]:
        """What the model says of texts, in their order.

        Args:
            texts: Texts, or pairs of texts.
            batch_size: Texts at a time; those of like length go together.

        Returns:
            Of a classifier ``{"label", "score"}`` for each text: its best class; of one of several
            labels a list of those that apply; of a regression the number. Of a classifier of tokens
            a list of ``{"label", "score", "start", "end"}``, without those that are outside.

        Raises:
            ValueError: The model has another head, or there is no tokenizer.
        """
        self._check_open()
        with torch.inference_mode():
            return predict(self.model, texts, self.tokenizer, self.longest, batch_size)

    def embed(self, texts: Sequence[Text], batch_size: int = 32) -> Array:
        """Vectors of texts, in their order: (texts, width) float32.

        They are what sentence-transformers' files in the folder say, or else the mean over the
        tokens of each text.

        Args:
            texts: Texts, or pairs of texts.
            batch_size: Texts at a time; those of like length go together.

        Raises:
            ValueError: There is no tokenizer, or the files ask for something else.
        """
        self._check_open()
        if self._pooling is None:
            self._pooling = read_pooling(self._origin.folder) if self._origin else Pooling()
        base: Any = self.model.base_model
        pooling = self._pooling
        with torch.inference_mode():
            return embed(base, texts, self.tokenizer, pooling, self.longest, batch_size)

    @property
    def plan(self) -> Any:
        """What the core chose for each product; None where torch runs the model."""
        return None if self._built is None else self._built.program.plan

    @property
    def precision(self) -> str | None:
        """The precision of the products; None where torch runs the model."""
        return None if self._built is None else self._built.program.precision

    @property
    def longest(self) -> int:
        """The most tokens of one text.

        Raises:
            ValueError: The model reads no texts.
        """
        config = self.model.config
        if self.model.main_input_name != "input_ids":
            raise ValueError(f"a model of type {config.model_type} reads no texts")
        if self._built is not None and self._built.reading.lookup is not None:
            return self._built.reading.lookup.longest
        return int(config.max_position_embeddings)

    @property
    def tokenizer(self) -> Any:
        """Of the folder, or as given; None where there is none."""
        if self._tokenizer is None and self._origin is not None:
            trust = self._origin.trust_remote_code
            self._tokenizer = load_tokenizer(self._origin.inside, trust_remote_code=trust)
        return self._tokenizer

    def close(self) -> None:
        """Let go of the program; the engine runs no more."""
        self._closed = True
        self._built = None
        self._forward.retire()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this engine is closed: compile another")

    def _release(self) -> None:
        """Take the weights that the program holds out of the model."""
        self._forward.release()
        drop_blocks_(base_of(self.model))


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return torch.tensor(value) if isinstance(value, list) else value


def _locate(name: str) -> tuple[Path, str]:
    """The folder as given, and what holds the model's config in it."""
    inside, _ = locate_model(name)
    return Path(name if Path(name, "modules.json").is_file() else inside), inside


def _load(folder: str, *, whole: bool, trust_remote_code: bool) -> PreTrainedModel:
    """The model of a folder, of the class that its config names, in float32.

    Args:
        folder: The model's.
        whole: Whether it is to run without the engine too; if not, packed matrices stay packed.
        trust_remote_code: Whether code that comes with the folder may be run.
    """
    trust: Any = {"trust_remote_code": trust_remote_code}
    family = None if whole else families.find(load_config(folder, **trust).model_type)
    with leaving_packed(lambda name: family is not None and is_product(name, family)):
        model, info = load_named(folder, **trust)
    _check_whole(folder, info)
    return model


def _check_whole(folder: str, info: Mapping[str, Any]) -> None:
    drawn = [key for name in FRESH for key in info.get(name, ())]
    fresh = [key if isinstance(key, str) else key[0] for key in drawn]
    if fresh := [name for name in fresh if "pooler" not in name]:
        raise ValueError(
            f"{folder}: its files lack weights of the class that config.json names, and they would "
            f"start at random: {listing(sorted(fresh), 3)}"
        )
