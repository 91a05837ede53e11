"""Tokenizers of every family, made here: a few hundred pieces each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "the film was good and a book was bad, the meal was fine",
    "unbelievable films, unfilmable books; don't eat 1,234 meals at 5.30!",
    "Das Café war schön — 電影很好看 ok 👍🏽",
] * 4
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
BART = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
T5 = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
GPT2 = {"eos": "<|end|>"}


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained(made, trainers.WordPieceTrainer(vocab_size=160, special_tokens=[*BERT.values()]))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return wrapped(made, BERT)


def byte_pairs() -> PreTrainedTokenizerFast:
    """As BART's and RoBERTa's."""
    made = bytes_of_words([*BART.values()])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return wrapped(made, {**BART, "cls": "<s>", "sep": "</s>"})


def bare_byte_pairs() -> PreTrainedTokenizerFast:
    """As GPT-2's: nothing stands around a text, and nothing pads it."""
    return wrapped(bytes_of_words([*GPT2.values()]), GPT2)


def bytes_of_words(special: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(
        made,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet),
    )


def unigram() -> PreTrainedTokenizerFast:
    """As T5's."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [*T5.values()]
    trained(made, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>"))
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return wrapped(made, T5)


def whole_texts() -> PreTrainedTokenizerFast:
    """As Llama's: pairs of characters are joined all over a text, blanks among them."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>"]
    trained(made, trainers.BpeTrainer(vocab_size=160, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return wrapped(made, {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "</s>"})


def trained(made: Tokenizer, trainer: Any) -> Tokenizer:
    made.train_from_iterator(TEXTS, trainer)
    return made


def wrapped(made: Tokenizer, special: dict[str, str]) -> PreTrainedTokenizerFast:
    names = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **names)


ALL: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "word pieces": word_piece,
    "byte pairs": byte_pairs,
    "bare byte pairs": bare_byte_pairs,
    "unigram": unigram,
    "whole texts": whole_texts,
}
