"""The words in which a family is described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Place:
    """Where a module lies: the name of its block, the block's number, and the module's role."""

    block: str
    layer: int
    role: str | None


@dataclass(frozen=True)
class Rows:
    """A matrix whose outputs belong to units, and what it holds of each of them.

    A matrix that holds several things has them one after the other, each for all units (GPT-2), or
    ``interleaved``: unit by unit (DeBERTa).
    """

    role: str
    holds: tuple[str, ...] = ()
    interleaved: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """What it holds: what ``holds`` says, or the one thing that its role is called after."""
        return self.holds or (self.role,)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """How the heads of one attention lie in its matrices.

    Names of modules are inside the block; ``*`` is any number.
    """

    module: str
    """The module that holds all of it."""

    rows: tuple[Rows, ...] = (Rows("query"), Rows("key"), Rows("value"))
    """The matrices whose outputs belong to heads. One of them holds ``value``, one ``query``."""

    out: str = "attention_out"
    """Role of the matrix whose inputs belong to heads."""

    vectors: Mapping[str, str] = field(default_factory=dict)
    """Parameter to what it holds, of those beside the biases of ``rows`` that belong to heads."""

    within: str = ""
    """Part of a block's name, where this is said only of such blocks."""

    count: str = "num_attention_heads"
    """Key of the config: number of heads."""

    shared: str = ""
    """Key of the config: number of key and value heads, where several query heads share one."""

    hidden: str = "hidden_size"
    """Key of the config: width of the model."""

    size: str = "head_dim"
    """Key of the config: size of a head. Where the config has none it is ``hidden // count``."""

    stock: bool = False
    """Whether the architecture takes a smaller ``count`` with the same ``size`` from its config."""

    table: str = ""
    """A parameter with one column a head that the attentions of all blocks share, by its name
    beside the blocks."""

    mixed_by: str = ""
    """A module that some configurations have and that mixes heads, so that none can go alone."""

    counts: tuple[str, ...] = ()
    """Attributes of the running model that hold the number of heads."""

    widths: tuple[str, ...] = ()
    """Attributes of the running model that hold the number of heads times their size."""


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """How the neurons of a feed-forward network lie in its matrices."""

    module: str = ""
    """The module that holds all of it, inside the block; empty means the block itself."""

    rows: tuple[Rows, ...] = (Rows("ffn_in"),)
    """The matrices whose outputs belong to neurons: ``ffn_in``, and ``ffn_gate`` if it is gated."""

    out: str = "ffn_out"
    """Role of the matrix whose inputs belong to neurons."""

    within: str = ""
    """Part of a block's name, where this is said only of such blocks."""

    count: str = "intermediate_size"
    """Key of the config: number of neurons. All architectures take any number from it."""

    activation: str = "hidden_act"
    """Key of the config: name of the activation."""

    counts: tuple[str, ...] = ()
    """Attributes of the running model that hold the number of neurons."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """What one architecture calls its things.

    In names of modules ``*`` is any number, and ``|`` separates names of which a block has one.
    """

    name: str
    """The family's own name."""

    model_types: tuple[str, ...]
    """The values of ``config.model_type`` that belong to it."""

    block: str
    """Name of the repeated block without its prefix; ``{i}`` is its number, ``*`` any number."""

    roles: Mapping[str, str]
    """Role to module name inside the block; every block has all of them."""

    optional: Mapping[str, str] = field(default_factory=dict)
    """Role to module name inside the block, of modules that only some configurations or some of
    the blocks have."""

    heads: tuple[Heads, ...] = ()
    """Its attentions."""

    neurons: tuple[Neurons, ...] = ()
    """Its feed-forward networks."""

    transposed: bool = False
    """Whether matrices are stored (in, out), as ``Conv1D`` has them, and not (out, in)."""

    undivided: str = ""
    """Why ``heads`` and ``neurons`` are empty, where they are."""

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
        inside = match["inside"] or ""
        role = next((role for role, names in self._patterns if names.fullmatch(inside)), None)
        return Place(match["block"], int(match["layer"]), role)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        block = _numbers(self.block).replace(r"\{i\}", r"(?P<layer>\d+)")
        return re.compile(rf"(?P<block>(?:.*?\.)?{block})(?:\.(?P<inside>.+))?")

    @cached_property
    def _patterns(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        every = (*self.roles.items(), *self.optional.items())
        return tuple(
            (role, re.compile("|".join(map(_numbers, names.split("|"))))) for role, names in every
        )


def _numbers(name: str) -> str:
    """A name as a regular expression, with ``*`` any number."""
    return re.escape(name).replace(r"\*", r"\d+")
