"""A tokenizer in a model's folder."""

from __future__ import annotations

from pathlib import Path

from tokenizers import normalizers
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


def load_plainly(
    folder: str, end: int, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """A tokenizer that takes the words of special tokens in a text, such as ``</s>``, for text.

    It is saved so, and loads so with transformers, but for classes that are built anew from their
    vocabulary, such as T5's: these take the words for the token again.

    Args:
        folder: Of its model, or its name on the hub.
        end: Number of the token that no text may hold but at its end.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        OSError, ValueError, KeyError, ImportError: It cannot be loaded.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, split_special_tokens=True, trust_remote_code=trust_remote_code
    )
    token = tokenizer.convert_ids_to_tokens(end)
    if isinstance(token, str) and end in tokenizer(token, add_special_tokens=False)["input_ids"]:
        # Unigram's vocabulary holds its special tokens, and finds them in a text all the same
        backend = tokenizer.backend_tokenizer
        apart = normalizers.Replace(token, f"{token[0]} {token[1:]}")
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([apart, *before])
    return tokenizer


def same_tokenizer(one: PreTrainedTokenizerBase, other: TokenizersBackend) -> bool:
    """Whether two tokenizers split and mark every text alike."""
    return bool(
        one.special_tokens_map == other.special_tokens_map
        and one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    )


def described(tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenizer for an error: where it is from, and its class."""
    return f"{tokenizer.name_or_path or 'the tokenizer'}: a {type(tokenizer).__name__}"
