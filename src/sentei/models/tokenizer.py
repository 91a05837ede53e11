"""A tokenizer in a model's folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from sentei.models.pretrained import opening


def write_tokenizer(tokenizer: TokenizersBackend, folder: Path) -> None:
    """Write a tokenizer beside its model's config, and see that it is the one that loads.

    Raises:
        ValueError: Another comes back: Transformers builds some classes anew from their vocabulary.
    """
    tokenizer.save_pretrained(folder)
    with opening(folder, "tokenizer"):
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not same_tokenizer(loaded, tokenizer):
        raise ValueError(
            f"{described(tokenizer)} is not what Transformers loads from what it writes, so that "
            "a smaller one cannot be left in a folder; load it as a PreTrainedTokenizerFast, "
            "which takes tokenizer.json as it is"
        )


def same_tokenizer(one: PreTrainedTokenizerBase, other: TokenizersBackend) -> bool:
    """Whether two tokenizers split and mark every text alike."""
    return bool(
        one.special_tokens_map == other.special_tokens_map
        and one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    )


def described(tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenizer for an error: where it is from, and its class."""
    return f"{tokenizer.name_or_path or 'the tokenizer'}: a {type(tokenizer).__name__}"
