"""Between the tensors of packed files and the parameters of a model: transformers' conversions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps, WeightConverter

from sentei.pack.files import FIX, File, to_torch
from sentei.pack.tensor import PackedTensor
from sentei.untrusted import reading

_EVERY: Final = "sentei"
"""The name of the conversion that takes all tensors that no other takes."""

_left: ContextVar[Callable[[str], bool] | None] = ContextVar("left", default=None)


@contextmanager
def leaving_packed(names: Callable[[str], bool]) -> Iterator[None]:
    """Around ``from_pretrained``, to leave some weights of a packed model as they are.

    They are then parameters on the meta device, whose :func:`packed_of` is the packed tensor.

    Args:
        names: Whether a parameter, by its name in the model, is to be left.
    """
    token = _left.set(names)
    try:
        yield
    finally:
        _left.reset(token)


def packed_of(parameter: Tensor | None) -> PackedTensor | None:
    """What a parameter was left as; None of one that holds its numbers."""
    return getattr(parameter, "packed", None)


def unpacking(
    conversions: Sequence[Any], files: Mapping[str, File], model: PreTrainedModel
) -> list[Any]:
    """A model's conversions, with decoding before each of them.

    Args:
        conversions: From tensors of a plain model's files to parameters.
        files: The file of each tensor.
        model: What is loaded.
    """
    source = _Source(files, model)
    made = [
        _Before(one, source) if isinstance(one, WeightConverter) else one for one in conversions
    ]
    return [*made, _Single(source)]


def as_before(conversions: Sequence[Any] | None) -> list[Any] | None:
    """The conversions that :func:`unpacking` was given."""
    if conversions is None:
        return None
    plain = (one.original if isinstance(one, _Before) else one for one in conversions)
    return [one for one in plain if not isinstance(one, _Single)]


def casts(converter: Any, dtype: torch.dtype) -> bool:
    """Whether a conversion is one of these, which cast what they have decoded: to that dtype."""
    if isinstance(converter, _Reading):
        converter.dtype = dtype
        return True
    return False


class _Source:
    """The tensors of packed files, by their names there."""

    def __init__(self, files: Mapping[str, File], model: PreTrainedModel) -> None:
        self._files = files
        self._most = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Source:
        return self  # transformers copies conversions for each parameter

    def read(self, name: str) -> PackedTensor | Tensor:
        """A tensor, as it is written.

        Raises:
            ValueError: It is damaged, or larger than the whole model.
        """
        with torch.device("cpu"):  # from_pretrained may be called where another is the usual one
            found = self._files[name].get(name)
        if isinstance(found, PackedTensor) and found.size > self._most:
            raise ValueError(
                f"{self._files[name].path}: {name} has {found.size:,} entries, and the model of "
                f"config.json {self._most:,}; the files are not of one model"
            )
        return found

    def dense(self, name: str, written: PackedTensor | Tensor, dtype: torch.dtype | None) -> Tensor:
        """What :meth:`read` gave, decoded.

        Raises:
            ValueError: It is damaged.
        """
        if isinstance(written, Tensor):
            return written.to(dtype) if written.is_floating_point() else written
        with reading(f"{self._files[name].path}: {name}", FIX):
            return to_torch(written).to(dtype)


class _AsItIs(ConversionOps):
    """What transformers wants of a conversion, where there is nothing to convert."""

    def convert(self, input_dict: dict[str, Any], *arguments: Any, **others: Any) -> dict[str, Any]:
        """What is given."""
        del arguments, others
        return input_dict


class _Reading(WeightConverter):
    """Collects names of tensors, which are read in the conversion's own turn.

    So at most the tensors of one parameter are there twice, as bytes and as numbers.
    """

    def __init__(
        self, source: _Source, sources: list[str], targets: list[str], operations: list[Any]
    ) -> None:
        super().__init__(sources, targets, operations, force_cpu=True)
        self.source = source
        self.dtype: torch.dtype | None = None


class _Before(_Reading):
    """A conversion of the model's own, such as of a mixture's experts into one tensor."""

    def __init__(self, original: WeightConverter, source: _Source) -> None:
        super().__init__(
            source,
            list(original._original_source_patterns),
            list(original._original_target_patterns),
            original.operations,
        )
        self.scope_prefix = original.scope_prefix
        self.base_model_prefix = original.base_model_prefix
        self.original = original

    def add_tensor(
        self, target_key: str, source_key: str, source_pattern: str, future: Any
    ) -> None:
        """Collect a tensor."""
        del future
        dense: Any = partial(self._dense, source_key)
        super().add_tensor(target_key, source_key, source_pattern, dense)

    def _dense(self, name: str) -> Tensor:
        return self.source.dense(name, self.source.read(name), self.dtype)


class _Single(_Reading):
    """One tensor for one parameter: what all others are."""

    def __init__(self, source: _Source) -> None:
        super().__init__(source, [_EVERY], [""], [_AsItIs()])
        self.name = ""

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        """The same name, taken."""
        self._was_used = True
        return source_key, _EVERY

    def add_tensor(
        self, target_key: str, source_key: str, source_pattern: str, future: Any
    ) -> None:
        """Collect a tensor; where two are of one parameter, it is the first."""
        del target_key, source_pattern, future
        self.name = self.name or source_key

    def convert(
        self,
        layer_name: str,
        model: Any = None,
        config: Any = None,
        hf_quantizer: Any = None,
        loading_info: Any = None,
    ) -> dict[str, Any]:
        """The parameter, and under the names of those that are tied to it where some stay on disk:
        transformers would look for these in the packed file.
        """
        del config, loading_info
        written, left = self.source.read(self.name), _left.get()
        if written.shape != model.get_parameter_or_buffer(layer_name).shape:
            self.force_cpu = False  # transformers refuses it, or draws it anew if it was told to
            return {layer_name: torch.empty(written.shape, device="meta")}
        if left is None or isinstance(written, Tensor) or not left(layer_name):
            tied = _tied(model, layer_name) if hf_quantizer.offloads else []
            dense = self.source.dense(self.name, written, self.dtype)
            return dict.fromkeys([layer_name, *tied], dense)
        parameter: Any = nn.Parameter(torch.empty(written.shape, dtype=self.dtype, device="meta"))
        parameter.packed = written
        self.force_cpu = False
        return {layer_name: parameter}


def _tied(model: PreTrainedModel, name: str) -> list[str]:
    """The other names of a parameter."""
    return [one for one, source in model.all_tied_weights_keys.items() if source == name]
