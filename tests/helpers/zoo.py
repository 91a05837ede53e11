"""A tiny model of every known model type, with random weights, and something for it to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

LAYERS = 3
SIX = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")
SEVEN = ("query", "key", "value", "attention_out", "ffn_gate", "ffn_in", "ffn_out")
CROSS = ("cross_query", "cross_key", "cross_value", "cross_out")
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = SPECIAL | {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 20,
}
DISTIL = SPECIAL | {
    "dim": 32,
    "n_layers": LAYERS,
    "n_heads": 4,
    "hidden_dim": 24,
    "vocab_size": 40,
    "max_position_embeddings": 20,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
MODERN = TEXT | {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 4}
GPT2 = SPECIAL | {
    "n_embd": 32,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_inner": 24,
    "vocab_size": 40,
    "n_positions": 20,
}
LLAMA = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": LAYERS,
    "num_heads": 4,
    "vocab_size": 40,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8,
}
BART = SPECIAL | {
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "vocab_size": 40,
    "max_position_embeddings": 20,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}


@dataclass(frozen=True)
class Specimen:
    """One model type: its config, and the roles in the blocks of each of its stacks."""

    config: str
    settings: dict[str, object]
    stacks: tuple[tuple[str, ...], ...]
    generates: str = ""

    def build(self, name: str = "") -> PreTrainedModel:
        """The model of a class, or a classifier; evaluated, all its parameters random."""
        config: PreTrainedConfig = getattr(transformers, self.config)(**self.settings)
        if not name and "image_size" in self.settings:
            name = self.config.replace("Config", "ForImageClassification")
        torch.manual_seed(0)
        if name:
            model = getattr(transformers, name)(config)
        else:
            model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        return model.eval()

    def inputs(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Two examples."""
        generator = torch.Generator().manual_seed(1)
        if "image_size" in self.settings:
            return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator, dtype=dtype)}
        ids = torch.randint(5, 40, (2, 7), generator=generator)
        ids[:, -1] = 2  # encoder-decoder classifiers read the state at the end of the text
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


ZOO = {
    "bert": Specimen("BertConfig", TEXT, (SIX,)),
    "ernie": Specimen("ErnieConfig", TEXT, (SIX,)),
    "megatron-bert": Specimen("MegatronBertConfig", TEXT, (SIX,)),
    "rembert": Specimen("RemBertConfig", TEXT, (SIX,)),
    "roberta": Specimen("RobertaConfig", TEXT, (SIX,)),
    "roberta-prelayernorm": Specimen("RobertaPreLayerNormConfig", TEXT, (SIX,)),
    "xlm-roberta": Specimen("XLMRobertaConfig", TEXT, (SIX,)),
    "xlm-roberta-xl": Specimen("XLMRobertaXLConfig", TEXT, (SIX,)),
    "camembert": Specimen("CamembertConfig", TEXT, (SIX,)),
    "data2vec-text": Specimen("Data2VecTextConfig", TEXT, (SIX,)),
    "electra": Specimen("ElectraConfig", TEXT, (SIX,)),
    "deberta": Specimen(
        "DebertaConfig",
        TEXT | RELATIVE,
        (("qkv", "pos_key", "pos_query", "attention_out", "ffn_in", "ffn_out"),),
    ),
    "deberta, absolute": Specimen(
        "DebertaConfig",
        TEXT | {"relative_attention": False},
        (("qkv", "attention_out", "ffn_in", "ffn_out"),),
    ),
    "deberta-v2": Specimen(
        "DebertaV2Config",
        TEXT | RELATIVE | {"share_att_key": False, "conv_kernel_size": 3},
        (("query", "key", "value", "pos_key", "pos_query", "attention_out", "ffn_in", "ffn_out"),),
    ),
    "deberta-v2, version 3": Specimen(
        "DebertaV2Config",
        TEXT | RELATIVE | {"share_att_key": True, "position_buckets": 4},
        (SIX,),
    ),
    "distilbert": Specimen("DistilBertConfig", DISTIL, (SIX,)),
    "mpnet": Specimen("MPNetConfig", TEXT, (SIX,)),
    "albert": Specimen("AlbertConfig", TEXT, (SIX,)),
    "modernbert": Specimen(
        "ModernBertConfig", MODERN, (("qkv", "attention_out", "ffn_in_gate", "ffn_out"),)
    ),
    "vit": Specimen("ViTConfig", IMAGE, (SIX,)),
    "deit": Specimen("DeiTConfig", IMAGE, (SIX,)),
    "gpt2": Specimen(
        "GPT2Config", GPT2, (("qkv", "attention_out", "ffn_in", "ffn_out"),), "GPT2LMHeadModel"
    ),
    "llama": Specimen("LlamaConfig", LLAMA, (SEVEN,), "LlamaForCausalLM"),
    "mistral": Specimen("MistralConfig", LLAMA, (SEVEN,), "MistralForCausalLM"),
    "qwen2": Specimen(
        "Qwen2Config",
        {key: value for key, value in LLAMA.items() if key != "head_dim"},
        (SEVEN,),
        "Qwen2ForCausalLM",
    ),
    "qwen3": Specimen("Qwen3Config", LLAMA, (SEVEN,), "Qwen3ForCausalLM"),
    "t5": Specimen("T5Config", T5, (SIX, (*SIX, *CROSS)), "T5ForConditionalGeneration"),
    "t5, gated": Specimen(
        "T5Config",
        T5 | {"feed_forward_proj": "gated-gelu"},
        (SEVEN, (*SEVEN, *CROSS)),
        "T5ForConditionalGeneration",
    ),
    "bart": Specimen("BartConfig", BART, (SIX, (*SIX, *CROSS)), "BartForConditionalGeneration"),
    "mbart": Specimen("MBartConfig", BART, (SIX, (*SIX, *CROSS)), "MBartForConditionalGeneration"),
}
