from collections import Counter

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GemmaConfig,
    GemmaForSequenceClassification,
    OpenAIGPTConfig,
    OpenAIGPTForSequenceClassification,
)

from sentei import families
from sentei.parts.scope import Scope, block_and_role

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 30,
    "max_position_embeddings": 10,
}
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


class Wrapper(nn.Module):
    """Like DistributedDataParallel: one child called module, and no attribute forwarded."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Tower(nn.Module):
    """A model of no family: two blocks in a ModuleList, an embedding and a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(4, 6), "down": nn.Linear(6, 4), "ln": nn.LayerNorm(4)})
            for _ in range(2)
        )
        self.head = nn.Linear(4, 2)


@pytest.fixture
def bert():
    return BertForSequenceClassification(BertConfig(**SIZES))


def names(selection):
    return [site.name for site in selection.sites]


def reasons(selection):
    return {skipped.name: skipped.reason for skipped in selection.skipped}


def refused(model, **scope):
    with pytest.raises(ValueError) as caught:
        Scope(**scope).resolve(model)
    return str(caught.value)


class TestAutomatic:
    def test_every_parameter_is_a_site_or_skipped_with_a_reason(self, bert):
        selection = Scope().resolve(bert)
        every = [name for name, _ in bert.named_parameters()]
        assert sorted(names(selection) + list(reasons(selection))) == sorted(every)
        assert names(selection) == [name for name in every if name in set(names(selection))]
        assert Counter(reasons(selection).values()) == {
            "embedding": 3,
            "layer norm": 2 + 2 * 4,
            "bias": 2 * 6,
            "outside the encoder blocks (pooler, head)": 4,
        }
        assert selection.prunable == 2 * (4 * 8 * 8 + 2 * 8 * 16)
        assert selection.parameters == bert.num_parameters()

    def test_skipped_has_the_shape(self, bert):
        (classifier,) = (s for s in Scope().resolve(bert).skipped if s.name == "classifier.weight")
        assert classifier.shape == (2, 8)

    def test_without_a_preset_every_linear_in_blocks(self):
        selection = Scope().resolve(Tower())
        assert names(selection) == [
            f"blocks.{i}.{role}.weight" for i in range(2) for role in ("up", "down")
        ]
        assert [(s.layer, s.role) for s in selection.sites] == [
            (i, role) for i in range(2) for role in ("up", "down")
        ]
        assert selection.rule == (
            "no model type: every nn.Linear weight inside repeated blocks (nn.ModuleList)"
        )
        assert selection.note == ""
        assert reasons(selection) == {
            "embed.weight": "embedding",
            "head.weight": "outside the repeated blocks",
            "head.bias": "outside the repeated blocks",
            **{f"blocks.{i}.{name}.bias": "bias" for i in range(2) for name in ("up", "down")},
            **{
                f"blocks.{i}.ln.{leaf}": "layer norm" for i in (0, 1) for leaf in ("weight", "bias")
            },
        }

    def test_an_unknown_model_type_is_named(self):
        config = GemmaConfig(**SIZES, num_key_value_heads=2, pad_token_id=0)
        selection = Scope().resolve(GemmaForSequenceClassification(config))
        assert len(selection.sites) == 2 * 7
        assert selection.rule.startswith("no preset for model type gemma: every nn.Linear weight")
        assert selection.sites[0].role == "q_proj"

    def test_a_config_of_another_kind_is_no_model_type(self):
        model = Tower()
        model.config = {"model_type": "bert"}
        assert Scope().resolve(model).rule.startswith("no model type")

    def test_a_bare_encoder_in_a_users_own_model(self, bert):
        own = nn.Sequential(bert.bert, nn.Linear(8, 2))
        selection = Scope().resolve(own)
        assert len(selection.sites) == 12
        assert [site.layer for site in selection.sites] == [0] * 6 + [1] * 6
        assert "0.pooler.dense.weight" in reasons(selection)

    def test_no_linear_in_blocks(self):
        config = OpenAIGPTConfig(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=8)
        message = refused(OpenAIGPTForSequenceClassification(config))
        assert message.startswith(
            "scope matched no weight: no preset for model type openai-gpt, and no nn.Linear inside "
            "an nn.ModuleList. Name the weights in scope.include. First candidates: "
            "transformer.tokens_embed.weight"
        )

    def test_no_parameters(self):
        assert "has no parameters" in refused(nn.ReLU())

    def test_a_renamed_role_is_not_matched_in_part(self, bert):
        layer = bert.bert.encoder.layer[1].attention.self
        layer.q = layer.query
        del layer.query
        message = refused(bert)
        assert message.startswith("scope: the family preset bert does not fit this model: it has")
        assert "no bert.encoder.layer.1.attention.self.query.weight. " in message
        assert "scope.include" in message

    def test_a_renamed_block_is_not_matched_at_all(self, bert):
        bert.bert.encoder.blocks = bert.bert.encoder.layer
        del bert.bert.encoder.layer
        message = refused(bert)
        assert "does not fit this model: it has no encoder.layer.{i}." in message
        assert "First candidates: bert.encoder.blocks.0.attention.self.query.weight" in message


class TestPatterns:
    def test_include(self, bert):
        selection = Scope(include=("*.attention.self.*.weight", "bert.pooler.*")).resolve(bert)
        assert len(selection.sites) == 2 * 3 + 2
        assert selection.rule == "include patterns '*.attention.self.*.weight', 'bert.pooler.*'"
        assert [(s.layer, s.role) for s in selection.sites[-3:]] == [
            (1, "value"),
            (None, "dense"),
            (None, "dense.bias"),
        ]
        assert reasons(selection)["classifier.weight"] == "matched by no include pattern"

    def test_include_is_case_sensitive(self, bert):
        assert "matched no weight" in refused(bert, include=("*.QUERY.weight",))

    def test_exclude(self, bert):
        selection = Scope(exclude=("*.layer.0.*", "*.query.*")).resolve(bert)
        assert len(selection.sites) == 5
        assert reasons(selection)[QUERY] == "excluded by '*.layer.0.*'"
        assert selection.rule == "family preset bert"

    def test_exclude_may_name_what_is_out_anyway(self, bert):
        selection = Scope(exclude=("classifier.*",)).resolve(bert)
        assert len(selection.sites) == 12
        assert reasons(selection)["classifier.bias"] == "excluded by 'classifier.*'"

    def test_biases_of_the_preset(self, bert):
        selection = Scope(biases=True).resolve(bert)
        assert len(selection.sites) == 24
        assert names(selection)[:2] == [QUERY, QUERY.replace("weight", "bias")]
        assert [site.role for site in selection.sites[:2]] == ["query", "query.bias"]
        assert "bias" not in reasons(selection).values()
        assert selection.rule == "family preset bert, and their biases"

    def test_biases_of_include_and_exclude(self, bert):
        scope = Scope(include=("*.query.weight",), exclude=("*.layer.1.*.bias",), biases=True)
        assert [
            site.name.removeprefix("bert.encoder.layer.") for site in scope.resolve(bert).sites
        ] == [
            "0.attention.self.query.weight",
            "0.attention.self.query.bias",
            "1.attention.self.query.weight",
        ]

    def test_biases_where_there_are_none(self):
        model = nn.ModuleList([nn.Linear(2, 2, bias=False)])
        assert names(Scope(biases=True).resolve(model)) == ["0.weight"]

    def test_a_pattern_is_not_a_tuple(self):
        with pytest.raises(ValidationError, match="include"):
            Scope(include="*.query.*")

    def test_one_unmatched_include(self, bert):
        assert refused(bert, include=("*.attn.*",)) == (
            "scope.include=('*.attn.*',) matched no weight. First candidates: "
            "bert.encoder.layer.0.attention.self.query.weight, "
            "bert.encoder.layer.0.attention.self.key.weight, "
            "bert.encoder.layer.0.attention.self.value.weight, ... (12 in all). "
            "Did you mean '*.attention.*'?"
        )

    @pytest.mark.parametrize(
        ("pattern", "meant"),
        [
            ("encoder.layer.0.*", "*.encoder.layer.0.*"),
            ("bert.encoder", "bert.encoder.*"),
            ("attention.self", "*.attention.self.*"),
            ("*.Query.weigth", "*.query.weight"),
        ],
    )
    def test_a_near_pattern_is_one_that_matches(self, bert, pattern, meant):
        assert refused(bert, include=(pattern,)).endswith(f" Did you mean {meant!r}?")

    def test_nothing_near(self, bert):
        assert refused(bert, include=("xyzzy",)).endswith("(12 in all).")

    def test_one_of_several_includes_matches_nothing(self, bert):
        message = refused(bert, include=("*.query.*", "*.keys.*"))
        assert message.startswith(
            "scope.include=('*.query.*', '*.keys.*'): '*.keys.*' matched no weight."
        )
        assert message.endswith("Did you mean '*.key.*'?")

    def test_an_exclude_that_matches_nothing(self, bert):
        message = refused(bert, exclude=("*.pooller.*",))
        assert message.startswith("scope.exclude=('*.pooller.*',) matched no parameter.")
        assert message.endswith("Did you mean '*.pooler.*'?")

    def test_everything_excluded(self, bert):
        message = refused(bert, include=("*.query.weight",), exclude=("*.query.*",))
        assert message == (
            "scope.exclude=('*.query.*',) leaves nothing to prune. Exclude fewer of "
            f"{QUERY}, {QUERY.replace('layer.0', 'layer.1')}."
        )


class TestWrapped:
    @pytest.mark.parametrize(
        "wrap",
        [
            Wrapper,
            torch.compile,
            lambda model: torch.compile(Wrapper(model)),
            lambda model: Wrapper(torch.compile(model)),
        ],
        ids=["module", "compile", "compile(module)", "module(compile)"],
    )
    def test_the_same_names_and_rule(self, bert, wrap):
        plain, wrapped = Scope().resolve(bert), Scope().resolve(wrap(bert))
        assert names(wrapped) == names(plain)
        assert reasons(wrapped) == reasons(plain)
        assert wrapped.rule == "family preset bert"
        assert [s.parameter for s in wrapped.sites] == [s.parameter for s in plain.sites]
        assert wrapped.parameters == plain.parameters

    def test_blocks_compiled_one_by_one(self, bert):
        plain = Scope().resolve(bert)
        for i, layer in enumerate(bert.bert.encoder.layer):
            bert.bert.encoder.layer[i] = torch.compile(layer)
        assert "_orig_mod" in next(n for n, _ in bert.named_parameters() if "layer.0" in n)
        assert names(Scope().resolve(bert)) == names(plain)
        assert names(Scope(include=("bert.encoder.layer.1.*",)).resolve(bert))

    def test_patterns_see_plain_names(self, bert):
        message = refused(Wrapper(bert), include=("module.bert.encoder.*",))
        assert "First candidates: bert.encoder" in message

    def test_a_clash_is_refused(self):
        model = nn.Module()
        model.a = nn.Linear(2, 2)
        model.a.module = nn.Linear(2, 2)
        assert "two parameters are called a.weight" in refused(model)


class TestRefused:
    """What no engine can prune is named, with the way out."""

    def test_tied_names_in_scope(self):
        model = BertForMaskedLM(BertConfig(**SIZES))
        embedding, decoder = (
            "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.weight",
        )
        assert refused(model, include=(embedding, decoder)) == (
            f"scope: {embedding} and {decoder} are the same tensor (tied weights), and it can be "
            f"pruned only once. Exclude one of them: scope.exclude=('{decoder}',)."
        )
        selection = Scope(include=("*embeddings.weight", decoder), exclude=(decoder,)).resolve(
            model
        )
        assert embedding in names(selection)
        alone = Scope(include=(decoder,)).resolve(model)
        assert reasons(alone)[embedding] == f"the same tensor as {decoder}, which is pruned"
        assert alone.parameters == model.num_parameters()

    def test_one_block_used_twice(self):
        block = nn.ModuleDict({"up": nn.Linear(2, 2)})
        message = refused(nn.ModuleList([block, block]))
        assert "0.up.weight and 1.up.weight are the same tensor" in message
        assert names(Scope(exclude=("1.*",)).resolve(nn.ModuleList([block, block]))) == [
            "0.up.weight"
        ]

    def test_frozen(self, bert):
        bert.get_parameter(QUERY).requires_grad_(False)
        assert refused(bert) == (
            f"scope: {QUERY} is frozen (requires_grad=False). Unfreeze with requires_grad_(True), "
            f"or leave out what is frozen: scope.exclude=('{QUERY}',)."
        )
        assert len(Scope(exclude=(QUERY,)).resolve(bert).sites) == 11

    def test_frozen_layers_are_counted(self, bert):
        bert.bert.encoder.layer[0].requires_grad_(False)
        assert "... (6 in all) are frozen" in refused(bert)

    def test_frozen_outside_the_scope_is_fine(self, bert):
        bert.bert.embeddings.requires_grad_(False)
        assert len(Scope().resolve(bert).sites) == 12

    def test_not_contiguous(self):
        model = Tower()
        weight = model.blocks[0]["up"].weight
        weight.data = weight.data.t().contiguous().t()
        message = refused(model)
        assert "scope: blocks.0.up.weight is not contiguous in memory." in message
        assert "parameter.data.contiguous()" in message

    def test_not_floating_point(self):
        model = Tower()
        integers = torch.zeros(6, 4, dtype=torch.int8)
        model.blocks[1]["up"].weight = nn.Parameter(integers, requires_grad=False)
        message = refused(model)
        assert "scope: blocks.1.up.weight is not floating-point." in message
        assert "unquantised" in message

    @pytest.mark.parametrize(
        ("values", "problem"),
        [(torch.tensor(1.0), "a single number (0-d)"), (torch.zeros(0, 3), "empty (0 elements)")],
    )
    def test_nothing_to_prune(self, values, problem):
        model = Tower()
        model.odd = nn.Parameter(values)
        assert refused(model, include=("*",)) == (
            f"scope: odd is {problem}. Leave it out: scope.exclude=('odd',)."
        )
        assert Scope(include=("*",), exclude=("odd",)).resolve(model).sites

    def test_on_the_meta_device(self):
        with torch.device("meta"):
            model = Tower()
        message = refused(model)
        assert "on the meta device, without values. Load the weights first" in message

    def test_sharded(self):
        dist = pytest.importorskip("torch.distributed")
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor, Shard, distribute_tensor
        from torch.distributed.tensor.placement_types import _StridedShard

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            model = Tower()
            up = model.blocks[0]["up"]
            up.weight = nn.Parameter(distribute_tensor(up.weight, init_device_mesh("cpu", (1,))))
            some = refused(model)
            values, mesh = up.weight.detach().full_tensor(), init_device_mesh("cpu", (1,))
            up.weight = nn.Parameter(distribute_tensor(values, mesh, [Shard(1)]))
            one = refused(model)
            packed = DTensor.from_local(values, mesh, [_StridedShard(0, split_factor=2)])
            up.weight = nn.Parameter(packed)
            strided = refused(model)
            up.weight = nn.Parameter(distribute_tensor(values[None], mesh, [Shard(2)]))
            deep = refused(model, include=("*.up.weight",))
            model = fully_shard(Tower(), mesh=init_device_mesh("cpu", (1,)))
            assert Scope().resolve(model).sites[0].parameter.placements == (Shard(0),)
        finally:
            dist.destroy_process_group()
        assert "blocks.0.up.weight is a DTensor, and not shared out at all: weights" in some
        assert "up.weight is sharded and blocks.0.down.weight is not: weights are" in one
        assert "up.weight is shared out as _S(0, 2), and not in blocks of rows and col" in strided
        assert "up.weight is shared out as S(2), and not in blocks of rows and columns" in deep
        assert "fully_shard(model)" in some and "(tp_plan) leave them" in some

    def test_parts_that_no_tensor_tells_of(self):
        """Of a model that transformers has split without DTensors."""
        model = Tower()
        model._tp_size = 2
        message = refused(model)
        assert "tensor parallel over 2 processes, and blocks.0.up.weight is a plain" in message
        assert "load the model whole" in message

    def test_flat_parameters(self):
        """Of FSDP's first version: called by its name, and not by that of its one parameter."""
        wrapper = type("FullyShardedDataParallel", (nn.Sequential,), {})
        message = refused(wrapper(Tower()))
        assert "FullyShardedDataParallel (FSDP1)" in message and "fully_shard" in message


def test_a_conv1d_of_no_known_family_is_transposed():
    config = OpenAIGPTConfig(n_embd=8, n_layer=1, n_head=2, vocab_size=5, n_positions=4)
    model = OpenAIGPTForSequenceClassification(config)
    (site,) = Scope(include=("*.c_fc.weight",)).resolve(model).sites
    assert site.transposed and site.parameter.shape == (8, 32)
    (site,) = Scope(include=("score.weight",)).resolve(model).sites
    assert not site.transposed


def test_block_and_role():
    bert = families.find("bert")
    assert block_and_role(QUERY, bert) == (0, "query")
    assert block_and_role(QUERY.replace("weight", "bias"), bert) == (0, "query.bias")
    norm = "bert.encoder.layer.1.output.LayerNorm.bias"
    assert block_and_role(norm, bert) == (1, "LayerNorm.bias")
    assert block_and_role("classifier.weight", bert) == (None, "classifier")
    assert block_and_role("blocks.3.up.weight", None) == (None, "up")
    assert block_and_role("blocks.3.up.weight", None, {"blocks"}) == (3, "up")
    assert block_and_role("weight", None) == (None, "weight")


def test_the_scope_is_plain_data():
    scope = Scope.model_validate({"include": ["*.query.*"], "biases": True})
    assert scope == Scope(include=("*.query.*",), biases=True)
    assert Scope.model_validate(scope.model_dump()) == scope
    with pytest.raises(ValidationError, match="includes"):
        Scope.model_validate({"includes": []})
