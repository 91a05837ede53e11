"""Attentions that lost heads, in models whose blocks share one table of relative positions.

T5 and MPNet make a bias from that table once, for all heads that the model had, and hand it to
every block. With unequal heads removed in each, a block has to take the columns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention
from transformers.models.t5.modeling_t5 import T5Attention


def take_columns_(attention: nn.Module, kept: Sequence[int]) -> None:
    """Let an attention use some columns of those that it uses now.

    Args:
        attention: The module that computes it.
        kept: The columns, numbered among those in use.

    Raises:
        ValueError: The attention is of a class for which this is not written.
    """
    before = columns(attention)
    if before is None:
        original = type(attention)
        if original not in _VERSIONS:
            raise ValueError(
                f"{original.__name__}: how it uses the table of relative positions that its blocks "
                "share is not known, so its heads cannot be removed"
            )
        attention.__class__ = _VERSIONS[original]
    assert isinstance(attention, _T5 | _MPNet)
    attention.columns = [before[i] for i in kept] if before else list(kept)


def columns(attention: nn.Module) -> list[int] | None:
    """The columns of the shared table that an attention uses; None if it is all of them."""
    return attention.columns if isinstance(attention, _T5 | _MPNet) else None


def take_all_columns_(attention: nn.Module) -> None:
    """Undo :func:`take_columns_`, for when the table itself has only the columns in use."""
    if columns(attention) is not None:
        del attention.columns
        attention.__class__ = type(attention).__bases__[0]


class _T5(T5Attention):
    columns: list[int]

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if key_value_states is not None:
            # The bias of cross-attention is zeros, one for each head: not to be handed on.
            output, _, weights = super().forward(
                hidden_states, mask, key_value_states, None, past_key_values, **kwargs
            )
            return output, None, weights
        if position_bias is None:
            position_bias = self._shared(hidden_states.shape[1], past_key_values)
        own = position_bias[:, self.columns]
        output, _, weights = super().forward(
            hidden_states, mask, None, own, past_key_values, **kwargs
        )
        return output, position_bias, weights

    def _shared(self, length: int, past_key_values: Any) -> Tensor:
        """The bias of all heads that the table has, which the first block makes for the others."""
        seen, keys = 0, length
        if past_key_values is not None:
            cache = past_key_values
            if isinstance(cache, EncoderDecoderCache):
                cache = cache.self_attention_cache
            seen = cache.get_seq_length(self.layer_idx)
            keys, _ = cache.get_mask_sizes(length, self.layer_idx)
        bias: Tensor = self.compute_bias(  # type: ignore[no-untyped-call]
            length, keys, past_seen_tokens=seen
        )
        return bias


class _MPNet(MPNetSelfAttention):
    columns: list[int]

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        if position_bias is not None:
            position_bias = position_bias[:, self.columns]
        outputs: tuple[Tensor, ...] = super().forward(  # type: ignore[no-untyped-call]
            hidden_states, attention_mask, position_bias, output_attentions, **kwargs
        )
        return outputs


_VERSIONS: dict[type[nn.Module], type[nn.Module]] = {
    T5Attention: _T5,
    MPNetSelfAttention: _MPNet,
}
