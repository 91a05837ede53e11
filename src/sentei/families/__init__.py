"""What each architecture calls its repeated blocks, the matrices inside them, and their units.

Names and shapes only: neither transformers nor torch is imported here. The names are those of the
state dict and stand behind the same words for every family, the roles:

===============================  ===================================================================
role                             weight
===============================  ===================================================================
query, key, value                projections into the attention
qkv                              the three of them in one matrix
attention_out                    projection out of the attention
cross_query, cross_key,          the same of a decoder's attention to the encoder
cross_value, cross_key_value,
cross_out
pos_key, pos_query               projections of relative positions (DeBERTa)
ffn_in, ffn_out                  first and last matrix of the feed-forward network
ffn_gate                         of a gated one, the matrix that the activation is applied to; its
                                 product with what ``ffn_in`` gives goes into ``ffn_out``
ffn_in_gate                      ``ffn_gate`` and ``ffn_in`` in one matrix
===============================  ===================================================================

Where encoder and decoder blocks have the same names, a role stands for both.
"""

from __future__ import annotations

from sentei.families.catalogue import FAMILIES
from sentei.families.family import Family, Heads, Neurons, Place, Rows
from sentei.families.structures import Slice, Structure, StructureAt, divide, structures

__all__ = [
    "Family",
    "Heads",
    "Neurons",
    "Place",
    "Rows",
    "Slice",
    "Structure",
    "StructureAt",
    "divide",
    "find",
    "known",
    "names_embedding",
    "structures",
]


def find(model_type: str) -> Family | None:
    """Return the family that ``config.model_type`` belongs to, or None if it is not known."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)


def known() -> tuple[Family, ...]:
    """Return every known family."""
    return FAMILIES


def names_embedding(parameter: str) -> bool:
    """Whether the name of a parameter says that it belongs to embeddings."""
    parts = parameter.split(".")
    return "embeddings" in parts or any("embed" in part for part in parts[-2:])
