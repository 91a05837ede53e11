"""Which parameters are a model's embeddings, by architecture."""

from __future__ import annotations

import pytest
import transformers as t
from torch import nn

from sentei.models.embeddings import embeddings

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 20,
    "max_position_embeddings": 8,
}
BERT = ("word", "position", "token_type")


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        (
            t.BertForMaskedLM,
            t.BertConfig(**SMALL),
            {
                *(f"bert.embeddings.{table}_embeddings.weight" for table in BERT),
                "bert.embeddings.LayerNorm.weight",
                "bert.embeddings.LayerNorm.bias",
            },
        ),
        (
            t.ViTForImageClassification,
            t.ViTConfig(**SMALL, image_size=8, patch_size=4),
            {
                "vit.embeddings.cls_token",
                "vit.embeddings.position_embeddings",
                "vit.embeddings.patch_embeddings.projection.weight",
                "vit.embeddings.patch_embeddings.projection.bias",
            },
        ),
        (
            t.GPT2LMHeadModel,
            t.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8),
            {"transformer.wte.weight", "transformer.wpe.weight"},
        ),
        (
            t.GPTNeoXForCausalLM,
            t.GPTNeoXConfig(**SMALL, tie_word_embeddings=False),
            {"gpt_neox.embed_in.weight"},
        ),
        (
            t.T5ForConditionalGeneration,
            t.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=20),
            {"shared.weight"},
        ),
        (
            t.DebertaV2ForSequenceClassification,
            t.DebertaV2Config(**SMALL, relative_attention=True, position_biased_input=False),
            {
                "deberta.embeddings.word_embeddings.weight",
                "deberta.embeddings.LayerNorm.weight",
                "deberta.embeddings.LayerNorm.bias",
                "deberta.encoder.rel_embeddings.weight",
            },
        ),
        (
            t.BartForConditionalGeneration,
            t.BartConfig(
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                vocab_size=20,
                max_position_embeddings=8,
            ),
            {
                "model.shared.weight",
                *(
                    f"model.{side}.{name}"
                    for side in ("encoder", "decoder")
                    for name in (
                        "embed_positions.weight",
                        "layernorm_embedding.weight",
                        "layernorm_embedding.bias",
                    )
                ),
            },
        ),
        (
            t.LlamaForCausalLM,
            t.LlamaConfig(**SMALL, num_key_value_heads=2),
            {"model.embed_tokens.weight"},
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_embeddings_are_what_stands_before_the_first_block(kind, config, names):
    model = kind(config)
    found = embeddings(model)
    assert set(found) == names
    assert all(found[name] is model.get_parameter(name) for name in names)


class Odd(t.PreTrainedModel):
    """Calls nothing by a usual name."""

    config_class = t.PretrainedConfig

    def __init__(self, config, *, tells: bool):
        super().__init__(config)
        self.front, self.back = nn.Linear(4, 4), nn.Linear(4, 2)
        self.tells = tells

    def get_input_embeddings(self):
        if not self.tells:
            raise NotImplementedError
        return self.front

    def get_output_embeddings(self):
        return None


def test_a_model_of_other_names_is_asked():
    assert set(embeddings(Odd(t.PretrainedConfig(), tells=True))) == {"front.weight", "front.bias"}


def test_one_that_does_not_say_is_refused():
    with pytest.raises(ValueError, match="Odd does not say which weights are its embeddings"):
        embeddings(Odd(t.PretrainedConfig(), tells=False))
