"""Tokens as the Trainer gets them, and the lengths that a model takes."""

import pytest
import torch
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from sentei.data.features import Ragged, Tokens, check_inputs, tokenise
from sentei.tasks.labelled_texts import LabelledTexts


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdef"])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token="[PAD]",
        model_max_length=16,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def test_tokens_are_cut_and_padded_by_the_collator(tokenizer):
    from transformers import DataCollatorWithPadding

    examples = LabelledTexts(["a", "a b c d e f"], None, [1, 0], ("x", "y"), "two")
    tokens = tokenise(examples, tokenizer, 5)
    assert len(tokens) == 2
    assert tokens[0] == {
        "input_ids": [2, 4, 3],
        "token_type_ids": [0, 0, 0],
        "attention_mask": [1, 1, 1],
        "labels": 1,
    }
    assert tokens[-1]["input_ids"] == [2, 4, 5, 6, 3]
    with pytest.raises(IndexError):
        tokens[2]
    batch = DataCollatorWithPadding(tokenizer)([tokens[0], tokens[1]])
    assert batch["input_ids"].tolist() == [[2, 4, 3, 0, 0], [2, 4, 5, 6, 3]]
    assert batch["labels"].dtype == torch.int64


def test_tokens_of_pairs_with_values(tokenizer):
    examples = LabelledTexts(["a"] * 1500, ["b c"] * 1500, [0.5] * 1500, (), "many")
    tokens = tokenise(examples, tokenizer, 16)
    for row in (tokens[0], tokens[1024], tokens[1499]):
        assert row["input_ids"] == [2, 4, 3, 5, 6, 3]
        assert row["token_type_ids"] == [0, 0, 0, 1, 1, 1]
        assert row["labels"] == 0.5


@pytest.mark.parametrize("max_length", [0, 2, 17])
def test_impossible_lengths(tokenizer, max_length):
    examples = LabelledTexts(["a"], None, [0], ("x",), "one")
    with pytest.raises(ValueError, match=f"max_length is {max_length} tokens.*at most 16"):
        tokenise(examples, tokenizer, max_length)


SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "max_position_embeddings": 12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
BART = {
    f"{side}_{name}": 1
    for side in ("encoder", "decoder")
    for name in ("layers", "ffn_dim", "attention_heads")
}


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        (lambda: BertModel(BertConfig(**SMALL)), 12),
        (lambda: RobertaModel(RobertaConfig(**SMALL)), 10),
        (lambda: BartModel(BartConfig(**{**SMALL, **BART})), 12),
        (lambda: GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=12)), 12),
        (lambda: ModernBertModel(ModernBertConfig(**SMALL)), None),
    ],
    ids=["bert", "roberta", "bart", "gpt2", "modernbert"],
)
def test_texts_longer_than_the_models_positions(model, limit):
    built = model().eval()

    def fits(length):
        ids = Ragged()
        ids.extend([[5] * 3, [5] * length])
        check_inputs(Tokens({"input_ids": ids}), built)
        built(torch.full((1, length), 5))

    fits(limit or 40)
    if limit:
        with pytest.raises(ValueError, match=f"{limit + 1} tokens .* use --max-length {limit}"):
            fits(limit + 1)
