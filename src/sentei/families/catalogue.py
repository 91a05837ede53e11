"""The known families."""

from __future__ import annotations

from sentei.families.family import Family, Heads, Neurons, Rows

_QKV = ("query", "key", "value")

_BERT_ROLES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}

# In all of these the size of a head is the model's width divided by the number of heads, so that
# the config cannot say that there are fewer.
_BERT_HEADS = Heads(
    module="attention",
    counts=("attention.self.num_attention_heads",),
    widths=("attention.self.all_head_size",),
)

_LLAMA_ROLES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_out": "self_attn.o_proj",
    "ffn_in": "mlp.up_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_out": "mlp.down_proj",
}

# Query heads that share a key and value head go with it. Qwen3's norms of query and key are one
# head wide and shared by all heads.
_LLAMA_HEADS = Heads(module="self_attn", shared="num_key_value_heads", stock=True)

_GATED = (Rows("ffn_in"), Rows("ffn_gate"))
_LLAMA_NEURONS = Neurons(module="mlp", rows=_GATED, counts=("mlp.intermediate_size",))

_CROSS = (
    Rows("cross_query", ("query",)),
    Rows("cross_key", ("key",)),
    Rows("cross_value", ("value",)),
)

FAMILIES = (
    Family(
        name="bert",
        model_types=("bert", "ernie", "megatron-bert", "rembert"),
        block="encoder.layer.{i}",
        roles=_BERT_ROLES,
        heads=(_BERT_HEADS,),
        neurons=(Neurons(),),
    ),
    Family(
        name="roberta",
        model_types=(
            "roberta",
            "roberta-prelayernorm",
            "xlm-roberta",
            "xlm-roberta-xl",
            "camembert",
            "data2vec-text",
        ),
        block="encoder.layer.{i}",
        roles=_BERT_ROLES,
        heads=(_BERT_HEADS,),
        neurons=(Neurons(),),
    ),
    Family(
        name="electra",
        model_types=("electra",),
        block="encoder.layer.{i}",
        roles=_BERT_ROLES,
        heads=(_BERT_HEADS,),
        neurons=(Neurons(),),
    ),
    Family(
        name="deberta",
        model_types=("deberta",),
        block="encoder.layer.{i}",
        roles={
            "qkv": "attention.self.in_proj",
            "attention_out": "attention.output.dense",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
        optional={
            "pos_key": "attention.self.pos_proj",
            "pos_query": "attention.self.pos_q_proj",
        },
        heads=(
            Heads(
                module="attention",
                rows=(Rows("qkv", _QKV, interleaved=True), Rows("pos_key"), Rows("pos_query")),
                vectors={"attention.self.q_bias": "query", "attention.self.v_bias": "value"},
                mixed_by="attention.self.head_logits_proj",
                counts=_BERT_HEADS.counts,
                widths=_BERT_HEADS.widths,
            ),
        ),
        neurons=(Neurons(),),
        note="query, key and value are one matrix, interleaved head by head: one site.",
    ),
    Family(
        name="deberta-v2",
        model_types=("deberta-v2",),
        block="encoder.layer.{i}",
        roles={
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
            "attention_out": "attention.output.dense",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
        optional={
            "pos_key": "attention.self.pos_key_proj",
            "pos_query": "attention.self.pos_query_proj",
        },
        heads=(
            Heads(
                module="attention",
                rows=(*(Rows(role) for role in _QKV), Rows("pos_key"), Rows("pos_query")),
                size="attention_head_size",
                counts=_BERT_HEADS.counts,
                widths=_BERT_HEADS.widths,
            ),
        ),
        neurons=(Neurons(),),
    ),
    Family(
        name="distilbert",
        model_types=("distilbert",),
        block="transformer.layer.{i}",
        roles={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_out": "attention.out_lin",
            "ffn_in": "ffn.lin1",
            "ffn_out": "ffn.lin2",
        },
        heads=(
            Heads(module="attention", count="n_heads", hidden="dim", counts=("attention.n_heads",)),
        ),
        neurons=(Neurons(module="ffn", count="hidden_dim", activation="activation"),),
    ),
    Family(
        name="mpnet",
        model_types=("mpnet",),
        block="encoder.layer.{i}",
        roles={
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention_out": "attention.attn.o",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
        heads=(
            Heads(
                module="attention.attn",
                table="encoder.relative_attention_bias.weight",
                counts=("attention.attn.num_attention_heads",),
                widths=("attention.attn.all_head_size",),
            ),
        ),
        neurons=(Neurons(),),
    ),
    Family(
        name="albert",
        model_types=("albert",),
        block="encoder.albert_layer_groups.{i}.albert_layers.*",
        roles={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "attention_out": "attention.dense",
            "ffn_in": "ffn",
            "ffn_out": "ffn_output",
        },
        undivided=(
            "several layers share one set of weights, so that no head or neuron belongs to one "
            "layer. Prune single weights of it"
        ),
        note=(
            "ALBERT's layers are one shared set of weights used several times (one set a layer "
            "group): it is pruned once and counted once."
        ),
    ),
    Family(
        name="modernbert",
        model_types=("modernbert",),
        block="layers.{i}",
        roles={
            "qkv": "attn.Wqkv",
            "attention_out": "attn.Wo",
            "ffn_in_gate": "mlp.Wi",
            "ffn_out": "mlp.Wo",
        },
        heads=(Heads(module="attn", rows=(Rows("qkv", _QKV),)),),
        neurons=(
            # The activation is applied to the first half, which the architecture calls the input.
            Neurons(
                module="mlp",
                rows=(Rows("ffn_in_gate", ("ffn_gate", "ffn_in")),),
                activation="hidden_activation",
            ),
        ),
        note=(
            "query, key and value are one matrix, and so are the feed-forward input and its gate: "
            "one site each."
        ),
    ),
    Family(
        name="vit",
        model_types=("vit", "deit"),
        block="layers.{i}",
        roles={
            "query": "attention.q_proj",
            "key": "attention.k_proj",
            "value": "attention.v_proj",
            "attention_out": "attention.o_proj",
            "ffn_in": "mlp.fc1",
            "ffn_out": "mlp.fc2",
        },
        heads=(
            # The size of a head is no field of the config, and read from it if it is there.
            Heads(module="attention", stock=True, counts=("attention.num_attention_heads",)),
        ),
        neurons=(Neurons(module="mlp"),),
    ),
    Family(
        name="gpt2",
        model_types=("gpt2",),
        block="h.{i}",
        roles={
            "qkv": "attn.c_attn",
            "attention_out": "attn.c_proj",
            "ffn_in": "mlp.c_fc",
            "ffn_out": "mlp.c_proj",
        },
        optional={
            "cross_query": "crossattention.q_attn",
            "cross_key_value": "crossattention.c_attn",
            "cross_out": "crossattention.c_proj",
        },
        heads=(
            Heads(
                module="attn",
                rows=(Rows("qkv", _QKV),),
                count="n_head",
                hidden="n_embd",
                counts=("attn.num_heads",),
                widths=("attn.split_size",),
            ),
            Heads(
                module="crossattention",
                rows=(_CROSS[0], Rows("cross_key_value", ("key", "value"))),
                out="cross_out",
                count="n_head",
                hidden="n_embd",
                counts=("crossattention.num_heads",),
                widths=("crossattention.split_size",),
            ),
        ),
        neurons=(Neurons(module="mlp", count="n_inner", activation="activation_function"),),
        transposed=True,
        note="query, key and value are one matrix: one site. Matrices are stored (in, out).",
    ),
    Family(
        name="llama",
        model_types=("llama",),
        block="layers.{i}",
        roles=_LLAMA_ROLES,
        heads=(_LLAMA_HEADS,),
        neurons=(_LLAMA_NEURONS,),
    ),
    Family(
        name="mistral",
        model_types=("mistral",),
        block="layers.{i}",
        roles=_LLAMA_ROLES,
        heads=(_LLAMA_HEADS,),
        neurons=(_LLAMA_NEURONS,),
    ),
    Family(
        name="qwen2",
        model_types=("qwen2",),
        block="layers.{i}",
        roles=_LLAMA_ROLES,
        heads=(_LLAMA_HEADS,),
        neurons=(_LLAMA_NEURONS,),
    ),
    Family(
        name="qwen3",
        model_types=("qwen3",),
        block="layers.{i}",
        roles=_LLAMA_ROLES,
        heads=(_LLAMA_HEADS,),
        neurons=(_LLAMA_NEURONS,),
    ),
    Family(
        name="t5",
        model_types=("t5",),
        block="block.{i}",
        roles={
            "query": "layer.0.SelfAttention.q",
            "key": "layer.0.SelfAttention.k",
            "value": "layer.0.SelfAttention.v",
            "attention_out": "layer.0.SelfAttention.o",
            "ffn_in": "layer.*.DenseReluDense.wi|layer.*.DenseReluDense.wi_1",
            "ffn_out": "layer.*.DenseReluDense.wo",
        },
        optional={
            "cross_query": "layer.1.EncDecAttention.q",
            "cross_key": "layer.1.EncDecAttention.k",
            "cross_value": "layer.1.EncDecAttention.v",
            "cross_out": "layer.1.EncDecAttention.o",
            "ffn_gate": "layer.*.DenseReluDense.wi_0",
        },
        heads=(
            Heads(
                module="layer.0.SelfAttention",
                count="num_heads",
                hidden="d_model",
                size="d_kv",
                stock=True,
                table="block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                counts=("layer.0.SelfAttention.n_heads",),
                widths=("layer.0.SelfAttention.inner_dim",),
            ),
            Heads(
                module="layer.1.EncDecAttention",
                rows=_CROSS,
                out="cross_out",
                count="num_heads",
                hidden="d_model",
                size="d_kv",
                stock=True,
                counts=("layer.1.EncDecAttention.n_heads",),
                widths=("layer.1.EncDecAttention.inner_dim",),
            ),
        ),
        neurons=(
            Neurons(
                module="layer.*.DenseReluDense",
                rows=_GATED,
                count="d_ff",
                activation="dense_act_fn",
            ),
        ),
    ),
    Family(
        name="bart",
        model_types=("bart", "mbart"),
        block="layers.{i}",
        roles={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "attention_out": "self_attn.out_proj",
            "ffn_in": "fc1",
            "ffn_out": "fc2",
        },
        optional={
            "cross_query": "encoder_attn.q_proj",
            "cross_key": "encoder_attn.k_proj",
            "cross_value": "encoder_attn.v_proj",
            "cross_out": "encoder_attn.out_proj",
        },
        heads=(
            *(
                Heads(
                    module="self_attn",
                    within=f"{stack}.",
                    count=f"{stack}_attention_heads",
                    hidden="d_model",
                    counts=("self_attn.num_heads",),
                )
                for stack in ("encoder", "decoder")
            ),
            Heads(
                module="encoder_attn",
                rows=_CROSS,
                out="cross_out",
                within="decoder.",
                count="decoder_attention_heads",
                hidden="d_model",
                counts=("encoder_attn.num_heads",),
            ),
        ),
        neurons=tuple(
            Neurons(
                within=f"{stack}.",
                count=f"{stack}_ffn_dim",
                activation="activation_function",
            )
            for stack in ("encoder", "decoder")
        ),
    ),
)
