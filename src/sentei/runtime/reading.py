"""A transformers model, read as an encoder.

What architectures call their matrices stands in :mod:`sentei.families`; here is the rest: where
norms lie and which of them come first, which module is the activation, what counts positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedModel
from transformers import modeling_outputs as outputs
from transformers.utils.generic import ModelOutput

from sentei import families
from sentei.families import Family
from sentei.pack.loading import packed_of
from sentei.runtime.encoder import (
    Activation,
    Array,
    Embeddings,
    Encoder,
    Layer,
    Linear,
    Norm,
    Unsupported,
)
from sentei.runtime.packed import Lookup
from sentei.runtime.weights import PackedWeight, to_array


@dataclass(frozen=True)
class Names:
    """What an architecture calls the modules that have no weights to prune; inside the block."""

    attention: str
    activation: str
    attention_norm: str
    ffn_norm: str
    final_norm: str = ""
    """Beside the blocks; where there is one, norms come first."""

    types: bool = False
    """Whether there are token types."""

    images: bool = False

    output: type[ModelOutput] = outputs.BaseModelOutputWithPooling
    """What the model without a head returns."""


_BERT = Names(
    attention="attention.self",
    activation="intermediate.intermediate_act_fn",
    attention_norm="attention.output.LayerNorm",
    ffn_norm="output.LayerNorm",
    types=True,
    output=outputs.BaseModelOutputWithPoolingAndCrossAttentions,
)
_VIT = Names(
    attention="attention",
    activation="mlp.activation_fn",
    attention_norm="layernorm_before",
    ffn_norm="layernorm_after",
    final_norm="layernorm",
    images=True,
)
MODELS: Final[Mapping[str, Names]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": replace(_BERT, output=outputs.BaseModelOutputWithPastAndCrossAttentions),
    "distilbert": Names(
        attention="attention",
        activation="ffn.activation",
        attention_norm="sa_layer_norm",
        ffn_norm="output_layer_norm",
        output=outputs.BaseModelOutput,
    ),
    "mpnet": Names(
        attention="attention.attn",
        activation="intermediate.intermediate_act_fn",
        attention_norm="attention.LayerNorm",
        ffn_norm="output.LayerNorm",
    ),
    "vit": _VIT,
    "deit": _VIT,
}
"""By ``config.model_type``."""

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "ReLU": "relu",
}
"""By name of the module's class."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A model, read."""

    encoder: Encoder

    lookup: Lookup | None
    """How ids follow from inputs; None for a model of images."""


def base_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its head: the part that the engine runs.

    Raises:
        Unsupported: It is none that the engine knows.
    """
    if not isinstance(model, PreTrainedModel):
        raise Unsupported(
            f"a {type(model).__name__} cannot run on the engine: give a model of transformers"
        )
    config = model.config
    if config.model_type not in MODELS:
        raise Unsupported(
            f"model type {config.model_type} cannot run on the engine; it runs {', '.join(MODELS)}"
        )
    for key in ("is_decoder", "add_cross_attention", "is_causal"):
        if getattr(config, key, False):
            raise Unsupported(
                f"config.{key}=True: the engine runs encoders, whose tokens all see one another"
            )
    base: Any = model.base_model
    known: Any = MODEL_MAPPING[type(config)]
    if not isinstance(base, known) or type(base).forward is not known.forward:
        raise Unsupported(
            f"a {type(base).__name__} cannot run on the engine: of model type {config.model_type} "
            f"it runs {known.__name__} as transformers has it"
        )
    return base  # type: ignore[no-any-return]


def prefix_of(model: PreTrainedModel) -> str:
    """What a model puts before names of the one without its head."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def read(model: PreTrainedModel, prefix: str = "") -> Reading:
    """Read a model as an encoder.

    Arrays of a float32 model share its memory; others become float32.

    Args:
        model: The model, with or without a head.
        prefix: What goes before the names of its weights.

    Raises:
        Unsupported: The engine cannot run it, or a weight is not finite.
    """
    base = base_of(model)
    names = MODELS[base.config.model_type]
    reader = _Reader(base, prefix + prefix_of(model))
    blocks = _blocks(base)
    layers = tuple(_layer(reader, block, roles, names) for block, roles in blocks)
    hidden = layers[0].out.weight.shape[0]
    _check(layers, hidden)
    encoder = Encoder(
        layers=layers,
        hidden=hidden,
        norm_first=bool(names.final_norm),
        activation=_activation(reader, [f"{block}.{names.activation}" for block, _ in blocks]),
        final_norm=reader.norm(names.final_norm) if names.final_norm else None,
        relative=_relative(reader),
        embeddings=None if names.images else _embeddings(reader, names),
    )
    return Reading(encoder, None if names.images else _lookup(base, names))


class _Reader:
    """Arrays out of a base model, by names of its modules; nothing that it does not know."""

    def __init__(self, base: PreTrainedModel, prefix: str) -> None:
        self.base, self.prefix = base, prefix

    def module(self, name: str, kind: type[nn.Module]) -> Any:
        """A module, of just that class: others compute something else."""
        module = self.base.get_submodule(name)
        if type(module) is not kind or "forward" in vars(module):
            raise Unsupported(
                f"{self.prefix}{name} is a {type(module).__name__} and not a plain "
                f"{kind.__name__}: merge an adapter, remove parametrizations, and give the model "
                "unquantized"
            )
        return module

    def check_known(self, block: str) -> None:
        """Refuse a block that holds modules of others, whose forward may be anything."""
        for name, module in self.base.get_submodule(block).named_modules(prefix=block):
            kind = type(module)
            ours = kind.__module__.startswith(("transformers.", "torch.nn.", "sentei."))
            if not ours or "forward" in vars(module):
                raise Unsupported(
                    f"{self.prefix}{name} is a {kind.__module__}.{kind.__name__} with a forward of "
                    "its own, which the engine does not know: merge an adapter, take out others"
                )

    def array(self, name: str, leaf: str) -> Array | None:
        """A parameter as float32; None where the module has none."""
        module = self.base.get_submodule(name)
        full = f"{self.prefix}{name}.{leaf}"
        parameter = module._parameters.get(leaf)
        if parameter is None:
            if leaf not in module._parameters:
                raise Unsupported(
                    f"{full} is no parameter but computed: make it one, such as with "
                    "torch.nn.utils.prune.remove"
                )
            return None
        return to_array(parameter, full)

    def linear(self, name: str) -> Linear:
        module, full = self.module(name, nn.Linear), f"{self.prefix}{name}.weight"
        packed = packed_of(module._parameters.get("weight"))
        weight = self.array(name, "weight") if packed is None else PackedWeight(packed, full)
        bias = self.array(name, "bias")
        assert weight is not None
        zeros = np.zeros(module.out_features, np.float32)
        return Linear(weight, zeros if bias is None else bias, full)

    def norm(self, name: str) -> Norm:
        module = self.module(name, nn.LayerNorm)
        weight, bias = self.array(name, "weight"), self.array(name, "bias")
        size = module.normalized_shape[-1]
        return Norm(
            np.ones(size, np.float32) if weight is None else weight,
            np.zeros(size, np.float32) if bias is None else bias,
            float(module.eps),
        )

    def table(self, name: str) -> Array:
        module = self.module(name, nn.Embedding)
        if module.max_norm is not None:
            raise Unsupported(f"{self.prefix}{name}: the engine has no max_norm for embeddings")
        weight = self.array(name, "weight")
        assert weight is not None
        return weight


def _blocks(base: PreTrainedModel) -> list[tuple[str, dict[str, str]]]:
    """Name of each block in its order, with its matrices: role to name of the module."""
    family = families.find(base.config.model_type)
    assert family is not None
    found: dict[tuple[int, str], dict[str, str]] = {}
    for name, _ in base.named_modules():
        place = family.locate(name)
        if place is not None:
            roles = found.setdefault((place.layer, place.block), {})
            if place.role is not None:
                roles[place.role] = name
    for (_, block), roles in found.items():
        if missing := [role for role in family.roles if role not in roles]:
            raise Unsupported(f"{block} has no {family.roles[missing[0]]}")
    if not found:
        raise Unsupported(f"a {type(base).__name__} of 0 blocks gives the engine nothing to run")
    return [(block, roles) for (_, block), roles in sorted(found.items())]


def _layer(reader: _Reader, block: str, roles: Mapping[str, str], names: Names) -> Layer:
    reader.check_known(block)
    attention: Any = reader.base.get_submodule(f"{block}.{names.attention}")
    size = int(getattr(attention, "head_dim", None) or attention.attention_head_size)
    query = reader.linear(roles["query"])
    return Layer(
        query=query,
        key=reader.linear(roles["key"]),
        value=reader.linear(roles["value"]),
        out=reader.linear(roles["attention_out"]),
        heads=query.weight.shape[0] // size,
        head_size=size,
        scale=float(getattr(attention, "scaling", size**-0.5)),
        ffn_in=reader.linear(roles["ffn_in"]),
        ffn_out=reader.linear(roles["ffn_out"]),
        attention_norm=reader.norm(f"{block}.{names.attention_norm}"),
        ffn_norm=reader.norm(f"{block}.{names.ffn_norm}"),
        relative_heads=_relative_heads(reader.base, attention),
    )


def _check(layers: tuple[Layer, ...], hidden: int) -> None:
    """Refuse shapes that do not fit each other: the core trusts them."""
    for layer in layers:
        width, neurons = layer.heads * layer.head_size, layer.ffn_in.weight.shape[0]
        shapes = {
            layer.query: (width, hidden),
            layer.key: (width, hidden),
            layer.value: (width, hidden),
            layer.out: (hidden, width),
            layer.ffn_in: (neurons, hidden),
            layer.ffn_out: (hidden, neurons),
        }
        for linear, shape in shapes.items():
            if linear.weight.shape != shape or not width:
                raise Unsupported(
                    f"{linear.name} is {linear.weight.shape}, where {layer.heads} heads of "
                    f"{layer.head_size} in a model {hidden} wide need {shape}"
                )


def _activation(reader: _Reader, names: list[str]) -> Activation:
    kinds = {type(reader.base.get_submodule(name)).__name__ for name in names}
    if len(kinds) > 1 or not kinds <= _ACTIVATIONS.keys():
        raise Unsupported(
            f"activation {', '.join(sorted(kinds))} of {reader.prefix}{names[0]}: the engine has "
            f"{', '.join(_ACTIVATIONS)}, one for all blocks"
        )
    return _ACTIVATIONS[kinds.pop()]


def _embeddings(reader: _Reader, names: Names) -> Embeddings | None:
    """The tables, where summing their rows and a norm is all there is."""
    if hasattr(reader.base, "embeddings_project"):
        return None
    tables = [reader.table(name) for name in _tables(names)]
    return Embeddings(tuple(tables), reader.norm("embeddings.LayerNorm"))


def _tables(names: Names) -> list[str]:
    kinds = ("word", "position", *(("token_type",) if names.types else ()))
    return [f"embeddings.{kind}_embeddings" for kind in kinds]


def _lookup(base: PreTrainedModel, names: Names) -> Lookup:
    tables: list[Any] = [base.get_submodule(name) for name in _tables(names)]
    padding = getattr(base.embeddings, "padding_idx", None)
    return Lookup(tuple(table.weight.shape[0] for table in tables), padding)


def is_product(name: str, family: Family) -> bool:
    """Whether a parameter of a model, by its name, is a matrix that the engine multiplies with."""
    module, _, leaf = name.rpartition(".")
    place = family.locate(module)
    return leaf == "weight" and place is not None and place.role is not None


def drop_blocks_(base: PreTrainedModel) -> None:
    """Let go of the weights of a model's blocks: shapes are left of them."""
    family = families.find(base.config.model_type)
    assert family is not None
    for name, module in base.named_modules():
        if family.locate(name) is not None:
            for leaf, parameter in module._parameters.items():
                if parameter is not None:
                    meta = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
                    module._parameters[leaf] = meta


# ------------------------------------------------------------------- MPNet's relative positions


def _relative(reader: _Reader) -> Array | None:
    """What each head adds for each distance of two tokens."""
    base: Any = reader.base
    if base.config.model_type != "mpnet":
        return None
    table = reader.table("encoder.relative_attention_bias")
    reach = base.config.max_position_embeddings - 1
    bucket = base.encoder.relative_position_bucket(torch.arange(-reach, reach + 1)).numpy()
    if bucket.max() >= len(table):
        raise Unsupported(
            f"config.relative_attention_num_buckets={len(table)}: MPNet itself reads "
            f"{bucket.max() + 1}"
        )
    return np.ascontiguousarray(table[bucket].T)


def _relative_heads(base: PreTrainedModel, attention: nn.Module) -> tuple[int, ...] | None:
    if base.config.model_type != "mpnet":
        return None
    from sentei.models.shared_bias import columns  # loads two architectures

    used = columns(attention)
    return None if used is None else tuple(used)
