"""What each architecture calls its repeated blocks and the weight matrices inside them.

Names only: neither transformers nor torch is imported here. The names are those of the state dict
and stand behind the same words for every family, the roles:

========================  ==========================================================================
role                      weight
========================  ==========================================================================
query, key, value         projections into the attention
qkv                       the three of them stacked in one matrix
attention_out             projection out of the attention
ffn_in, ffn_out           first and last matrix of the feed-forward network
ffn_in_gate               ``ffn_in`` and the gate of a gated feed-forward network in one matrix
pos_key, pos_query        projections of relative positions (DeBERTa)
========================  ==========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["Family", "Place", "find", "known"]


@dataclass(frozen=True)
class Place:
    """Where a module lies: the name of its block, the block's number, and the module's role."""

    block: str
    layer: int
    role: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """What one architecture calls its things."""

    name: str
    """The family's own name."""

    model_types: tuple[str, ...]
    """The values of ``config.model_type`` that belong to it."""

    block: str
    """Name of the repeated block without its prefix; ``{i}`` is its number, ``*`` any number."""

    roles: Mapping[str, str]
    """Role to module name inside the block; every block has all of them."""

    optional: Mapping[str, str] = field(default_factory=dict)
    """Role to module name inside the block, of modules that only some configurations have."""

    note: str = ""
    """A sentence for users, where the family would surprise them."""

    def locate(self, module: str) -> Place | None:
        """Find the block that a module belongs to.

        Args:
            module: Full dotted name of the module, such as
                ``bert.encoder.layer.3.attention.self.query``.

        Returns:
            Its place, with ``role`` None if the module has no role; None outside the blocks.
        """
        match = self._pattern.fullmatch(module)
        if match is None:
            return None
        return Place(match["block"], int(match["layer"]), self._role_of.get(match["inside"]))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        block = re.escape(self.block).replace(r"\{i\}", r"(?P<layer>\d+)").replace(r"\*", r"\d+")
        return re.compile(rf"(?P<block>(?:.*?\.)?{block})(?:\.(?P<inside>.+))?")

    @cached_property
    def _role_of(self) -> dict[str | None, str]:
        return {module: role for role, module in (*self.roles.items(), *self.optional.items())}


_BERT_ROLES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}

_FAMILIES = (
    Family(
        name="bert",
        model_types=("bert", "ernie", "megatron-bert", "rembert"),
        block="encoder.layer.{i}",
        roles=_BERT_ROLES,
    ),
    Family(
        name="roberta",
        model_types=(
            "roberta",
            "roberta-prelayernorm",
            "xlm-roberta",
            "xlm-roberta-xl",
            "camembert",
            "data2vec-text",
        ),
        block="encoder.layer.{i}",
        roles=_BERT_ROLES,
    ),
    Family(
        name="electra",
        model_types=("electra",),
        block="encoder.layer.{i}",
        roles=_BERT_ROLES,
    ),
    Family(
        name="deberta",
        model_types=("deberta",),
        block="encoder.layer.{i}",
        roles={
            "qkv": "attention.self.in_proj",
            "attention_out": "attention.output.dense",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
        optional={
            "pos_key": "attention.self.pos_proj",
            "pos_query": "attention.self.pos_q_proj",
        },
        note="query, key and value are one matrix, interleaved head by head: one site.",
    ),
    Family(
        name="deberta-v2",
        model_types=("deberta-v2",),
        block="encoder.layer.{i}",
        roles={
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
            "attention_out": "attention.output.dense",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
        optional={
            "pos_key": "attention.self.pos_key_proj",
            "pos_query": "attention.self.pos_query_proj",
        },
    ),
    Family(
        name="distilbert",
        model_types=("distilbert",),
        block="transformer.layer.{i}",
        roles={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_out": "attention.out_lin",
            "ffn_in": "ffn.lin1",
            "ffn_out": "ffn.lin2",
        },
    ),
    Family(
        name="mpnet",
        model_types=("mpnet",),
        block="encoder.layer.{i}",
        roles={
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention_out": "attention.attn.o",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
    ),
    Family(
        name="albert",
        model_types=("albert",),
        block="encoder.albert_layer_groups.{i}.albert_layers.*",
        roles={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "attention_out": "attention.dense",
            "ffn_in": "ffn",
            "ffn_out": "ffn_output",
        },
        note=(
            "ALBERT's layers are one shared set of weights used several times (one set a layer "
            "group): it is pruned once and counted once."
        ),
    ),
    Family(
        name="modernbert",
        model_types=("modernbert",),
        block="layers.{i}",
        roles={
            "qkv": "attn.Wqkv",
            "attention_out": "attn.Wo",
            "ffn_in_gate": "mlp.Wi",
            "ffn_out": "mlp.Wo",
        },
        note=(
            "query, key and value are one matrix, and so are the feed-forward input and its gate: "
            "one site each."
        ),
    ),
    Family(
        name="vit",
        model_types=("vit", "deit"),
        block="layers.{i}",
        roles={
            "query": "attention.q_proj",
            "key": "attention.k_proj",
            "value": "attention.v_proj",
            "attention_out": "attention.o_proj",
            "ffn_in": "mlp.fc1",
            "ffn_out": "mlp.fc2",
        },
    ),
)


def find(model_type: str) -> Family | None:
    """Return the family that ``config.model_type`` belongs to, or None if it is not known."""
    return next((family for family in _FAMILIES if model_type in family.model_types), None)


def known() -> tuple[Family, ...]:
    """Return every known family."""
    return _FAMILIES
