"""A small student, a small teacher, and a batch for both."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig

from sentei.parts.distillation import Distillation

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 24,
}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 60,
    "max_position_embeddings": 24,
}
EVERYTHING = Distillation(labels=1, logits=1, hidden=1, attention=1)


def bert(seed=0, **changes):
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SIZES | changes))


def batch(lengths=(9, 9, 9, 9), width=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (len(lengths), width), generator=generator)
    mask = torch.tensor([[int(i < n) for i in range(width)] for n in lengths])
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": torch.arange(len(lengths)) % 2,
    }


def no_dropout(**changes):
    return {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | changes


DISTILBERT = DistilBertConfig(
    dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=60, max_position_embeddings=24
)


def regressor(seed):
    return bert(seed, num_labels=1, problem_type="regression", **no_dropout())
