"""The rows that a model has for its vocabulary: where they are, and fewer of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from sentei.models.structures import make_stock

_FORBIDDEN = ("suppress_tokens", "begin_suppress_tokens")
_UNKNOWN = ("force_words_ids", "sequence_bias")


def find_tables(model: PreTrainedModel) -> dict[str, int]:
    """The tensors that have an entry for every token, by name, and along which dimension.

    They are those of the stock model whose shapes change with the config's ``vocab_size``: so
    nothing hangs on names, nor on sizes that happen to be alike.

    Raises:
        ValueError: There are none, the input embedding is not among them, or they are not to be
            cut: hashed or several vocabularies, quantised, on the meta device.
    """
    config = model.config
    size = getattr(config, "vocab_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"a {type(model).__name__} has no vocabulary that can be cut: its config has no "
            "vocab_size"
        )
    for key in config.to_dict():
        if "vocab_size" in key and key not in ("vocab_size", "type_vocab_size"):
            raise ValueError(
                f"a {type(model).__name__} has more than one vocabulary (its config has {key}), "
                "and only one that all parts share can be cut"
            )
    before, after = (_shapes(model, size + more) for more in (0, 1))
    tables = {
        name: next(dim for dim, length in enumerate(shape) if length != after[name][dim])
        for name, shape in before.items()
        if shape != after[name]
    }
    embedding = model.get_input_embeddings()
    tensors = dict(_tensors(model))
    if not isinstance(embedding, nn.Embedding) or not any(
        tensors.get(name) is embedding.weight for name in tables
    ):
        raise ValueError(
            f"a {type(model).__name__} has no plain table with a row for every token (its input "
            f"embedding is a {type(embedding).__name__}), so that rows cannot be taken out"
        )
    for name, dim in tables.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape[dim] != size:
            has = "is not there" if tensor is None else f"has {tensor.shape[dim]:,} entries"
            raise ValueError(f"{name} {has}, and the config's vocab_size is {size:,}")
        if tensor.is_meta or not tensor.is_floating_point():
            what = "on the meta device" if tensor.is_meta else f"of {tensor.dtype}"
            raise ValueError(f"{name} is {what}: load the model in memory and unquantised")
    return tables


def named_ids(model: PreTrainedModel) -> set[int]:
    """Ids that the model's configs name and that have a row."""
    return {
        number
        for holder, key in _places(model)
        for number in _ids(getattr(holder, key))
        if 0 <= number < model.config.vocab_size
    }


@torch.no_grad()
def take_rows_(model: PreTrainedModel, tables: Mapping[str, int], new: Mapping[int, int]) -> None:
    """Keep some rows of a model's vocabulary, and renumber what its configs say.

    What shares a tensor goes on sharing it. Ids that have no row and are no token stay as they
    are; removed tokens leave the lists of what must not be generated.

    Args:
        model: The model.
        tables: Its tensors, see :func:`find_tables`.
        new: The new id of each token that stays, in the order of the old ones.

    Raises:
        ValueError: An id cannot be renumbered.
    """
    _check_positions(model, tables, new)
    size = model.config.vocab_size
    rows = torch.tensor(sorted(old for old in new if old < size))
    tensors = dict(_tensors(model))
    smaller: dict[int, Tensor] = {}
    for name, dim in tables.items():
        old = tensors[name]
        if id(old) not in smaller:
            fewer = old.index_select(dim, rows.to(old.device))
            is_parameter = isinstance(old, nn.Parameter)
            smaller[id(old)] = (
                nn.Parameter(fewer, requires_grad=old.requires_grad) if is_parameter else fewer
            )
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        setattr(owner, leaf, smaller[id(old)])
        if isinstance(owner, nn.Linear):
            owner.out_features = len(rows)
        elif isinstance(owner, nn.Embedding):
            owner.num_embeddings = len(rows)
    for module in model.modules():
        own = vars(module)
        if isinstance(padding := own.get("padding_idx"), int):
            own["padding_idx"] = new.get(padding)
        if own.get("vocab_size") == size:
            own["vocab_size"] = len(rows)
    _renumber_(model, new)
    for config in _configs(model):
        if getattr(config, "vocab_size", None) == size:
            config.vocab_size = len(rows)


def _shapes(model: PreTrainedModel, size: int) -> dict[str, tuple[int, ...]]:
    config = copy.deepcopy(model.config)
    config.vocab_size = size
    return {name: tuple(tensor.shape) for name, tensor in _tensors(make_stock(model, config))}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _check_positions(
    model: PreTrainedModel, tables: Mapping[str, int], new: Mapping[int, int]
) -> None:
    """Refuse to renumber the padding that RoBERTa and its like count positions from."""
    owners = {name.rpartition(".")[0] for name in tables}
    for name, module in model.named_modules():
        padding = vars(module).get("padding_idx")
        own = next(module.parameters(recurse=False), next(module.buffers(recurse=False), None))
        if isinstance(padding, int) and own is not None and name not in owners:
            if new.get(padding) != padding:
                raise ValueError(
                    f"{name} counts positions from the id of the padding, {padding}, which would "
                    f"become {new.get(padding)} without unused tokens before it: the vocabulary of "
                    f"this {type(model).__name__} cannot be cut"
                )


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Every config that a module reads, and those inside them."""
    configs: dict[int, PreTrainedConfig] = {}
    waiting: list[Any] = [vars(module).get("config") for module in model.modules()]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PreTrainedConfig) and id(config) not in configs:
            configs[id(config)] = config
            waiting.extend(vars(config).values())
    return list(configs.values())


def _places(model: PreTrainedModel) -> Iterator[tuple[Any, str]]:
    """Everything in configs that is a token's id or a list of them."""
    for holder in (*_configs(model), _generation(model)):
        for key in vars(holder):
            if key.endswith(("_token_id", "_token_ids", "_token_index")):
                yield holder, key


def _generation(model: PreTrainedModel) -> GenerationConfig:
    """How the model generates; an empty config if it does not."""
    config = vars(model).get("generation_config")
    return config if isinstance(config, GenerationConfig) else GenerationConfig()


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [number for number in values if isinstance(number, int)]


def _renumber_(model: PreTrainedModel, new: Mapping[int, int]) -> None:
    for holder, key in _places(model):
        value = getattr(holder, key)
        if isinstance(value, int):
            setattr(holder, key, new.get(value, value))
        elif value is not None:
            setattr(holder, key, [new.get(old, old) for old in value])
    generation = _generation(model)
    for key in _UNKNOWN:
        if getattr(generation, key, None):
            raise ValueError(
                f"the generation config's {key} names tokens by their ids and is not renumbered: "
                "take it out of generation_config.json first"
            )
    for key in _FORBIDDEN:
        if forbidden := getattr(generation, key, None):
            setattr(generation, key, [new[old] for old in forbidden if old in new] or None)
    if words := generation.bad_words_ids:
        left = [[new[old] for old in word] for word in words if all(old in new for old in word)]
        generation.bad_words_ids = left or None
