"""Vocabularies cut to some texts: the same tokens, the same outputs, fewer rows."""

import copy
import functools
import json
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordLevelTrainer, WordPieceTrainer
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    ByT5Tokenizer,
    CanineConfig,
    CanineModel,
    GPT2Tokenizer,
    LlamaTokenizer,
    MBartTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    T5Tokenizer,
)

from helpers.zoo import BART, DISTIL, GPT2, LLAMA, MODERN, RELATIVE, T5, TEXT, ZOO, Specimen
from sentei.models.folder import MANIFEST
from sentei.shrink import load, save, shrink, shrink_vocabulary
from sentei.shrink.vocabulary.tokens import encode

SYLLABLES = ["ba", "de", "fi", "go", "hu", "kla", "men", "nor", "pri", "stu", "té", "wy"]


def words(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(count)]


CORPUS = [
    " ".join(random.Random(line).choices(words(80, seed=0), k=8)) + ", yes!" for line in range(200)
]
SEEN = [
    "gode stuwy ba, yes!",
    "Primen nor fide",
    ("hukla té", "nornor yes"),
    "Ⓐ goⒶde ba",  # characters that the corpus has not
    " ba ",
]
BERT_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SIZE = 150


def wordpiece() -> BertTokenizer:
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.Whitespace()
    raw.train_from_iterator(CORPUS, WordPieceTrainer(vocab_size=SIZE, special_tokens=BERT_MARKS))
    return BertTokenizer(vocab=raw.get_vocab())


def trained_bpe(marks: list[str]) -> dict:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet)
    raw.train_from_iterator(CORPUS, trainer)
    model = json.loads(raw.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def roberta() -> RobertaTokenizer:
    return RobertaTokenizer(**trained_bpe(ROBERTA_MARKS))


def gpt2() -> GPT2Tokenizer:
    return GPT2Tokenizer(**trained_bpe(["<|endoftext|>"]))


def trained_unigram(marks: list[str]) -> list[tuple[str, float]]:
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(vocab_size=SIZE, special_tokens=marks, unk_token="<unk>")
    raw.train_from_iterator(CORPUS, trainer)
    return [tuple(entry) for entry in json.loads(raw.to_str())["model"]["vocab"]]


def t5() -> T5Tokenizer:
    marks = [f"<extra_id_{i}>" for i in range(3)]
    pieces = trained_unigram(["<pad>", "</s>", "<unk>"])
    return T5Tokenizer(vocab=pieces + [(mark, 0.0) for mark in marks], extra_ids=3)


def llama() -> LlamaTokenizer:
    """As sentencepiece's BPE becomes: every split of a token is a merge."""
    marks = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    raw.train_from_iterator(CORPUS, BpeTrainer(vocab_size=450, special_tokens=marks))
    vocab = raw.get_vocab()
    pieces = sorted(vocab, key=vocab.get)
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    return LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)


def wordlevel() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.train_from_iterator(CORPUS, WordLevelTrainer(special_tokens=BERT_MARKS))
    ends = [("[SEP]", raw.token_to_id("[SEP]")), ("[CLS]", raw.token_to_id("[CLS]"))]
    raw.post_processor = processors.Sequence([processors.BertProcessing(*ends)])
    raw.decoder = decoders.WordPiece()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, cls_token="[CLS]", **names)


TOKENIZERS: dict[str, Callable] = {
    function.__name__: functools.cache(function)
    for function in (wordpiece, roberta, gpt2, t5, llama, wordlevel)
}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
PAD_1 = {"pad_token_id": 1, "bos_token_id": 0}
LM_T5 = T5 | {"eos_token_id": 1}
END = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
CLASSIFIER = "BertForSequenceClassification"
CASES = {
    "bert": ("wordpiece", "BertConfig", TEXT, CLASSIFIER),
    "bert, words": ("wordlevel", "BertConfig", TEXT, CLASSIFIER),
    "bert, masked": ("wordpiece", "BertConfig", TEXT | TIED, "BertForMaskedLM"),
    "bert, masked, untied": ("wordpiece", "BertConfig", TEXT | UNTIED, "BertForMaskedLM"),
    "electra": ("wordpiece", "ElectraConfig", TEXT, "ElectraForMaskedLM"),
    "distilbert": ("wordpiece", "DistilBertConfig", DISTIL, "DistilBertForMaskedLM"),
    "deberta": ("wordpiece", "DebertaV2Config", TEXT | RELATIVE, "DebertaV2ForMaskedLM"),
    "modernbert": ("wordpiece", "ModernBertConfig", MODERN, "ModernBertForMaskedLM"),
    "roberta": ("roberta", "RobertaConfig", TEXT | PAD_1, "RobertaForSequenceClassification"),
    "roberta, masked": ("roberta", "RobertaConfig", TEXT | PAD_1, "RobertaForMaskedLM"),
    "mpnet": ("roberta", "MPNetConfig", TEXT | PAD_1, "MPNetForMaskedLM"),
    "gpt2": ("gpt2", "GPT2Config", GPT2 | END, "GPT2LMHeadModel"),
    "t5": ("t5", "T5Config", LM_T5 | TIED, "T5ForConditionalGeneration"),
    "t5, untied": ("t5", "T5Config", LM_T5 | UNTIED, "T5ForConditionalGeneration"),
    "bart": ("roberta", "BartConfig", BART | PAD_1, "BartForConditionalGeneration"),
    "llama": ("llama", "LlamaConfig", LLAMA | TIED, "LlamaForCausalLM"),
    "llama, untied": ("llama", "LlamaConfig", LLAMA | UNTIED, "LlamaForCausalLM"),
}


def build(case: str, more: int = 0):
    """A model with a row for each token of its tokenizer, and some more."""
    name, config, values, architecture = CASES[case]
    tokenizer = TOKENIZERS[name]()
    rows = {"vocab_size": len(tokenizer) + more, "max_position_embeddings": 64, "n_positions": 64}
    return Specimen(config, values | rows, ()).build(architecture).double(), tokenizer


def read(tokenizer, text):
    parts = (text,) if isinstance(text, str) else text
    inputs = tokenizer(*parts, return_tensors="pt")
    return inputs


@torch.no_grad()
def outputs(model, tokenizer, text):
    inputs = read(tokenizer, text)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return model(**inputs, output_hidden_states=True)


def tokens(tokenizer, text) -> list[str]:
    return tokenizer.convert_ids_to_tokens(read(tokenizer, text)["input_ids"][0])


@pytest.mark.parametrize("more", (0, 7))
@pytest.mark.parametrize("case", CASES)
def test_seen_texts_mean_the_same(case, more, tmp_path):
    model, tokenizer = build(case, more)
    before = copy.deepcopy(model.state_dict())
    vocabulary = tokenizer.get_vocab()

    smaller, fewer, report = shrink_vocabulary(model, tokenizer, iter(SEEN))

    assert report.tokens_before == len(vocabulary) and report.rows_before == len(vocabulary) + more
    assert report.tokens_after == report.rows_after == len(fewer) < len(vocabulary)
    assert (report.texts, report.changed) == (len(SEEN), 0)
    assert report.removed == report.rows_before - report.rows_after
    assert tokenizer.get_vocab() == vocabulary
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    kept = sorted(fewer.get_vocab(), key=fewer.get_vocab().get)
    old = [vocabulary[name] for name in kept]
    assert old == sorted(old)

    save(model, tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "vocab.txt").write_text("stale")
    save(smaller, tmp_path / "out", files=tmp_path / "whole", tokenizer=fewer)
    assert not (tmp_path / "out" / "vocab.txt").exists()
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "out")]
    assert sizes[1] < sizes[0]
    loaded, found = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found.values())
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert loaded.config.vocab_size == len(fewer) == report.rows_after
    assert report.parameters_after == sum(p.numel() for p in loaded.parameters())
    output, whole_output = loaded.get_output_embeddings(), model.get_output_embeddings()
    if output is not None:
        tied = output.weight is loaded.get_input_embeddings().weight
        assert tied == (whole_output.weight is model.get_input_embeddings().weight)
        assert output.out_features == len(fewer)

    coder = model.config.is_encoder_decoder
    states = ("encoder_hidden_states", "decoder_hidden_states") if coder else ("hidden_states",)
    weights = smaller.state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in loaded.state_dict().items())
    for text in SEEN:
        assert tokens(again, text) == tokens(tokenizer, text)
        wanted, said = outputs(model, tokenizer, text), outputs(smaller, fewer, text)
        for name in states:
            assert all(map(torch.equal, said[name], wanted[name]))
        if wanted.logits.shape[-1] != report.rows_before:
            assert torch.equal(said.logits, wanted.logits)
        else:  # the same rows, but a product of another shape, which may be summed in other order
            same = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-12)
            same(said.logits, wanted.logits[..., old])
    for name in ("pad", "bos", "eos", "decoder_start"):
        number = getattr(model.config, f"{name}_token_id", None)
        if number is not None:
            (token,) = tokenizer.convert_ids_to_tokens([number])
            renumbered = getattr(loaded.config, f"{name}_token_id")
            assert again.convert_ids_to_tokens([renumbered]) == [token]


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "wordlevel"])
def test_words_of_known_characters_stay_readable(name):
    case = next(case for case, said in CASES.items() if said[0] == name)
    model, tokenizer = build(case)
    _, fewer, _ = shrink_vocabulary(model, tokenizer, SEEN)
    for text in CORPUS[:20]:
        one, other = (each.decode(each(text)["input_ids"]) for each in (tokenizer, fewer))
        assert one == other
        assert len(tokens(fewer, text)) > len(tokens(tokenizer, text))


# ------------------------------------------------------------------------- tokenizers by lot

LETTERS = "abc"
PIECES = st.sets(st.text(LETTERS, min_size=1, max_size=4), max_size=12).map(sorted)


@st.composite
def pieces_by_lot(draw) -> models.WordPiece:
    """Not all letters are in it, so that words become unknown halfway."""
    names = ["[UNK]", *draw(PIECES), *(f"##{piece}" for piece in draw(PIECES))]
    return models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")


@st.composite
def merges_by_lot(draw) -> models.BPE:
    """A token may come of several merges, and a merge may never be reached."""
    names, merges = ["[UNK]", *LETTERS], []
    for _ in range(draw(st.integers(0, 15))):
        pair = tuple(draw(st.sampled_from(names[1:])) for _ in range(2))
        if len("".join(pair)) <= 5 and pair not in merges:
            merges.append(pair)
            names += [name for name in ["".join(pair)] if name not in names]
    whole = draw(st.booleans())
    vocab = {name: i for i, name in enumerate(names)}
    return models.BPE(vocab, merges, unk_token="[UNK]", ignore_merges=whole)


@st.composite
def scores_by_lot(draw) -> models.Unigram:
    """Few scores, so that ways to split tie; letters without a piece, so that unknown ones cost."""
    scored = [(piece, -float(draw(st.integers(1, 4)))) for piece in draw(PIECES)]
    return models.Unigram([("[UNK]", 0.0), *scored], unk_id=0, byte_fallback=False)


@settings(max_examples=60, deadline=None)
@given(
    model=st.one_of(pieces_by_lot(), merges_by_lot(), scores_by_lot()),
    texts=st.lists(st.text(LETTERS + "x ", min_size=1, max_size=12), min_size=1, max_size=4),
)
def test_seen_texts_are_split_as_before(model, texts):
    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    _, fewer, report = shrink_vocabulary(one_layer(len(whole)), whole, texts)
    assert report.changed == 0 and report.tokens_after == len(fewer) <= len(whole)
    for text in texts:
        assert fewer.tokenize(text) == whole.tokenize(text)


def one_layer(rows: int, **values):
    """Its config names no token, which would stay for that."""
    sizes = {"num_hidden_layers": 1, "vocab_size": rows}
    names = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    return Specimen("BertConfig", TEXT | sizes | names | values, ()).build("BertModel")


def words_of(*names: str, **options) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", **options)


def test_an_unknown_word_stays_unknown():
    """Without ``ab`` it would be found as ``a`` and ``##bx``."""
    whole = words_of("[UNK]", "a", "c", "ab", "##bx", "never")
    _, fewer, _ = shrink_vocabulary(one_layer(6), whole, ["a [UNK] cbx", ("never" * 50, "abx")])
    assert fewer.tokenize("cbx") == ["c", "##bx"]
    assert fewer.tokenize("abx") == ["[UNK]"] and "ab" in fewer.get_vocab()
    assert "never" not in fewer.get_vocab()


def test_an_unknown_character_costs_what_it_did():
    """It costs 10 more than the least likely piece; without that, ``ax`` would be a + unknown."""
    scored = [("[UNK]", 0.0), ("a", -1.0), ("ax", -16.0), ("rare", -20.0), ("fine", -2.0)]
    raw = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=False))
    whole = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    _, fewer, _ = shrink_vocabulary(one_layer(5), whole, ["ax"])
    assert list(fewer.get_vocab()) and fewer.tokenize("ax") == ["ax"]
    assert set(fewer.get_vocab()) == {"[UNK]", "a", "ax", "rare"}


def test_bpe_keeps_the_way_to_a_token_and_no_other():
    names = ["a", "b", "c", "ab", "bc", "abc", "cc"]
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("c", "c")]
    raw = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    whole = PreTrainedTokenizerFast(tokenizer_object=raw)
    _, fewer, _ = shrink_vocabulary(one_layer(7), whole, ["abc"])
    assert sorted(fewer.get_vocab(), key=fewer.get_vocab().get) == ["a", "b", "c", "bc", "abc"]
    assert json.loads(fewer.backend_tokenizer.to_str())["model"]["merges"] == [
        ["b", "c"],
        ["a", "bc"],
    ]


# ------------------------------------------------------------------------------------- settings


def test_rare_tokens_go_too_if_asked_and_texts_that_change_are_counted():
    model, tokenizer = build("bert")
    texts = ["gode ba", "gode ba", "gode fi", "primenfi"]
    once = shrink_vocabulary(model, tokenizer, texts)[2]
    _, fewer, twice = shrink_vocabulary(model, tokenizer, texts, least=2)
    changed = sum(tokens(fewer, text) != tokens(tokenizer, text) for text in texts)
    assert (once.changed, twice.changed, twice.least) == (0, changed, 2) and changed > 0
    assert twice.tokens_after < once.tokens_after


def test_nothing_to_remove_leaves_both_as_they_are():
    model, tokenizer = build("bert")
    smaller, fewer, _ = shrink_vocabulary(model, tokenizer, SEEN)
    again = shrink_vocabulary(smaller, fewer, SEEN)
    assert again[0] is smaller and again[1] is fewer and again[2].removed == 0
    assert again[2].parameters_after == again[2].parameters_before


def test_ids_in_configs_follow_their_tokens(tmp_path):
    model, tokenizer = build("bart", more=5)
    number = tokenizer.get_vocab()
    rare, gone, seen = len(tokenizer) - 1, len(tokenizer) - 2, number["Ġyes"]
    (padding_row,) = [len(tokenizer) + 2]
    model.config.forced_bos_token_id = rare
    model.config.eos_token_id = [2, rare]
    model.config.my_token_ids = [padding_row, 10**6]
    generation = model.generation_config
    generation.decoder_start_token_id, generation.forced_eos_token_id = 2, rare
    generation.suppress_tokens, generation.begin_suppress_tokens = [gone, seen], [gone]
    generation.bad_words_ids = [[seen, gone], [seen, 2]]

    smaller, fewer, report = shrink_vocabulary(model, tokenizer, SEEN)

    after = fewer.get_vocab()
    name = tokenizer.convert_ids_to_tokens(rare)
    config, generation = smaller.config, smaller.generation_config
    assert config.forced_bos_token_id == generation.forced_eos_token_id == after[name]
    assert config.eos_token_id == [2, after[name]] and config.pad_token_id == 1
    assert config.my_token_ids == [len(fewer), 10**6]
    assert report.rows_after == config.vocab_size == len(fewer) + 1
    assert torch.equal(
        smaller.get_input_embeddings().weight[-1], model.get_input_embeddings().weight[padding_row]
    )
    assert generation.suppress_tokens == [after["Ġyes"]]
    assert generation.begin_suppress_tokens is None
    assert generation.bad_words_ids == [[after["Ġyes"], 2]]
    assert model.generation_config.bad_words_ids == [[seen, gone], [seen, 2]]
    model.generation_config.force_words_ids = [[seen]]
    with pytest.raises(ValueError, match="force_words_ids names tokens by their ids"):
        shrink_vocabulary(model, tokenizer, SEEN)


def test_ids_that_a_tokenizer_keeps_itself_follow_their_tokens():
    pieces = trained_unigram(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer = MBartTokenizer(vocab=pieces, src_lang="de_DE")
    _, fewer, _ = shrink_vocabulary(one_layer(len(tokenizer)), tokenizer, SEEN)
    number = fewer.get_vocab()["de_DE"]
    assert number != tokenizer.cur_lang_code and fewer.src_lang == "de_DE"
    assert fewer.cur_lang_code == fewer.lang_code_to_id["de_DE"] == number
    assert fewer.suffix_tokens == [fewer.eos_token_id, number]
    assert fewer.name_or_path == tokenizer.name_or_path


def test_added_tokens_stay_with_a_row_or_without():
    model, tokenizer = build("bert")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<new>", "<newer>"])
    model.resize_token_embeddings(len(tokenizer) - 1)
    texts = [*SEEN, "ba<new>ba"]
    smaller, fewer, report = shrink_vocabulary(model, tokenizer, texts)
    assert fewer.get_vocab()["<new>"] == report.rows_after - 1 == smaller.config.vocab_size - 1
    assert fewer.get_vocab()["<newer>"] == report.rows_after
    wanted, said = outputs(model, tokenizer, texts[-1]), outputs(smaller, fewer, texts[-1])
    assert torch.equal(said.logits, wanted.logits)


def test_padding_and_truncation_of_the_tokenizer_are_kept():
    model, tokenizer = build("bert, words")
    tokenizer = copy.deepcopy(tokenizer)
    backend = tokenizer.backend_tokenizer
    last = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    backend.enable_padding(length=9, pad_id=len(tokenizer) - 1, pad_token=last)
    backend.enable_truncation(5)
    text = "yes " * 20 + SEEN[0]
    _, fewer, _ = shrink_vocabulary(model, tokenizer, [text])
    assert fewer.backend_tokenizer.padding["pad_id"] == fewer.get_vocab()[last]
    assert fewer.backend_tokenizer.truncation["max_length"] == 5
    assert len(backend.encode(text).ids) == 9 < len(next(encode(backend, [text])).ids)


def test_a_model_whose_heads_cannot_go_is_written_by_transformers(tmp_path):
    tokenizer = TOKENIZERS["wordpiece"]()
    sizes = {"vocab_size": len(tokenizer), "embedding_size": 8, "max_position_embeddings": 64}
    model = Specimen("AlbertConfig", TEXT | sizes, ()).build("AlbertForMaskedLM").double()
    smaller, fewer, report = shrink_vocabulary(model, tokenizer, SEEN)
    smaller.save_pretrained(tmp_path)
    fewer.save_pretrained(tmp_path)
    loaded, found = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values()) and loaded.config.vocab_size == report.rows_after == len(fewer)
    again = AutoTokenizer.from_pretrained(tmp_path)
    wanted, said = outputs(model, tokenizer, SEEN[0]), outputs(loaded, again, SEEN[0])
    torch.testing.assert_close(said.hidden_states[-1], wanted.hidden_states[-1])


@torch.no_grad()
def test_heads_and_neurons_go_as_well(tmp_path):
    model, tokenizer = build("bert")
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.output.dense.weight[:, : 3 + number] = 0
    wanted = outputs(model, tokenizer, SEEN[0]).logits
    first, _ = shrink(model)
    smaller, fewer, _ = shrink_vocabulary(first, tokenizer, SEEN)
    save(smaller, tmp_path / "out", tokenizer=fewer)
    assert (tmp_path / "out" / MANIFEST).is_file()
    loaded = load(tmp_path / "out")
    assert loaded.config.vocab_size == len(fewer)
    found = outputs(loaded, AutoTokenizer.from_pretrained(tmp_path / "out"), SEEN[0]).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_cut_is_refused_with_the_reason(tmp_path):
    model, tokenizer = build("bert")

    def refused(model=model, tokenizer=tokenizer, texts=SEEN, **options) -> str:
        with pytest.raises(ValueError) as caught:
            shrink_vocabulary(model, tokenizer, texts, **options)
        return str(caught.value)

    assert "no texts" in refused(texts=[])
    assert "least is 0" in refused(least=0)
    assert "ByT5Tokenizer is not made by the library tokenizers" in refused(
        tokenizer=ByT5Tokenizer()
    )
    affixed = Tokenizer(models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>"))
    assert "end_of_word_suffix is '</w>'" in refused(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=affixed)
    )
    assert "has no vocab_size" in refused(model=ZOO["vit"].build())
    hashed = CanineModel(CanineConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    assert "CanineModel has no vocabulary that can be cut" in refused(model=hashed)
    several = one_layer(SIZE, decoder_vocab_size=7)
    assert "more than one vocabulary (its config has decoder_vocab_size)" in refused(model=several)
    assert "on the meta device" in refused(model=copy.deepcopy(model).to("meta"))
    damaged = copy.deepcopy(model)
    damaged.config.vocab_size += 1
    assert "and the config's vocab_size is" in refused(model=damaged)


def test_positions_counted_from_the_padding_are_refused():
    model, tokenizer = build("roberta")
    values = CASES["roberta"][2] | {"vocab_size": len(tokenizer)}
    values |= {"pad_token_id": len(tokenizer) - 1, "max_position_embeddings": len(tokenizer) + 20}
    model = Specimen("RobertaConfig", values, ()).build()
    with pytest.raises(ValueError, match=r"roberta\.embeddings counts positions from the id"):
        shrink_vocabulary(model, tokenizer, SEEN)


def test_tokens_numbered_in_another_way_are_refused():
    raw = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "last": 5}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_tokens(["added"])
    whole = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    assert whole.get_vocab()["added"] == 4
    with pytest.raises(ValueError, match="the tokenizer cannot be cut: its token"):
        shrink_vocabulary(one_layer(6), whole, ["a last"])


def test_a_folder_whose_tokenizer_loads_otherwise_is_not_left(tmp_path):
    """T5's class makes its own metaspaces, whatever the file says."""
    model, tokenizer = build("t5")
    smaller, fewer, _ = shrink_vocabulary(model, tokenizer, SEEN)
    fewer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="a T5Tokenizer is not what Transformers loads"):
        save(smaller, tmp_path / "out", tokenizer=fewer)
    assert list(tmp_path.iterdir()) == []
    plain = PreTrainedTokenizerFast(tokenizer_object=fewer.backend_tokenizer, eos_token="</s>")
    save(smaller, tmp_path / "out", tokenizer=plain)
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokens(again, SEEN[0]) == tokens(plain, SEEN[0])
