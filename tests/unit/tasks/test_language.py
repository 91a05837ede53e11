import gzip
import json
import math
import random

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from helpers import tokenizers
from helpers.tasks import SEED, task_of
from sentei.tasks import blocks
from sentei.tasks.running_text import Documents
from sentei.tasks.task import Prediction

SMALL = dict(
    vocab_size=20,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
)


def of(**options):
    return task_of(kind="language", **options)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_plain_text_and_tables(tmp_path):
    (tmp_path / "a.txt").write_text("the film\nwas good\n")
    documents = of(eval=tmp_path / "a.txt").load_evaluation((), SEED)
    assert documents.rows == ["the film\nwas good\n"] and "18 characters" in documents.source
    rows = [{"text": "the film"}, {"text": "was good"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert of(eval=tmp_path / "a.jsonl").load_evaluation((), SEED).rows == ["the film", "was good"]
    with pytest.raises(ValueError, match=r"no column 'body'.*--text-column"):
        of(eval=tmp_path / "a.jsonl", text_column="body").load_evaluation((), SEED)
    with pytest.raises(ValueError, match="does not exist"):
        of(train=tmp_path / "none.txt").load(SEED)


def test_compressed_text(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"the film\nwas good\n"))
    documents = of(eval=tmp_path / "a.txt.gz").load_evaluation((), SEED)
    assert documents.rows == ["the film\nwas good\n"]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "the film"}'))
    assert of(eval=tmp_path / "a.jsonl.gz").load_evaluation((), SEED).rows == ["the film"]


def test_the_end_of_the_only_text_is_set_aside(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i:02}\n" for i in range(20)))
    train, evaluation = of(train=tmp_path / "a.txt").load(SEED)
    assert train.rows[0].endswith("line 17\n") and evaluation.rows == ["line 18\nline 19\n"]
    assert "its last 10%" in evaluation.source
    (tmp_path / "b.txt").write_text("one line")
    with pytest.raises(ValueError, match="no line end to cut it at"):
        of(train=tmp_path / "b.txt").load(SEED)


def test_of_several_texts_some_are_set_aside(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"t {i}"}) + "\n" for i in range(20))
    )
    train, evaluation = of(train=tmp_path / "a.jsonl").load(SEED)
    assert (len(train), len(evaluation)) == (18, 2)


def test_blocks_are_packed_without_padding(tokenizer):
    task = of(max_length=4)
    texts = Documents(["the film was", "good a book\nwas bad", "", " \n", "fine"], "three")
    blocks = task.features(texts, tokenizer, seed=SEED)
    words = [tokenizer.convert_ids_to_tokens(row["input_ids"]) for row in blocks]
    assert words == [["the", "film", "was", "good"], ["a", "book", "was", "bad"]]
    assert (blocks[0]["labels"] == blocks[0]["input_ids"]).all()
    assert blocks.summary == "9 tokens in 2 blocks of 4"
    batch = task.collator(tokenizer)([blocks[0], blocks[1]])
    assert batch["input_ids"].shape == (2, 4)
    with pytest.raises(ValueError, match="three: 9 tokens do not fill one block of 10"):
        of(max_length=10).features(texts, tokenizer, seed=SEED)


def test_an_end_stands_behind_each_text(tokenizer):
    tokenizer.eos_token = "[SEP]"
    try:
        blocks = of(max_length=4).features(
            Documents(["the film", "was"], "two"), tokenizer, seed=SEED
        )
        end = tokenizer.eos_token_id
        assert blocks[0]["input_ids"].tolist()[2] == end
    finally:
        tokenizer.eos_token = None


def test_long_texts_are_tokenised_in_pieces_without_losing_any(tokenizer):
    text = "the film was good\n" * 8000  # more than two pieces
    blocks = of(max_length=8).features(Documents([text], "long"), tokenizer, seed=SEED)
    assert len(blocks) == 4 * 8000 // 8
    assert {tuple(row["input_ids"].tolist()) for row in blocks} == {tuple(blocks[0]["input_ids"])}


# not of one that joins the ends of words with what follows: there a cut may tell
@pytest.mark.parametrize("family", [one for one in tokenizers.ALL if one != "whole texts"])
@pytest.mark.parametrize("end", ["", " ", "\n"])
def test_a_line_without_an_end_is_tokenised_in_pieces_to_the_same_tokens(monkeypatch, family, end):
    monkeypatch.setattr(blocks, "_PIECE", 200)
    monkeypatch.setattr(blocks, "_LINE", 400)
    tokenizer = tokenizers.ALL[family]()
    words = random.Random(0).choices(" ".join(tokenizers.TEXTS).split(), k=400)
    text = " ".join(words) + end
    packed = of(max_length=8).features(Documents([text], "long"), tokenizer)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [number for row in packed for number in row["input_ids"].tolist()]
    assert len(ids) > 250 and ids[: len(whole)] == whole[: len(ids)]


def test_what_has_neither_blanks_nor_line_ends_is_cut_all_the_same(monkeypatch):
    monkeypatch.setattr(blocks, "_PIECE", 200)
    monkeypatch.setattr(blocks, "_LINE", 400)
    tokenizer = tokenizers.word_piece()
    packed = of(max_length=8).features(Documents(["電影" * 1000], "long"), tokenizer)
    assert len(packed) == 2000 // 8


def test_perplexity_by_hand():
    task = of()
    # 3 tokens at 1 nat and 1 at 3: exp((3 + 3) / 4)
    predictions = [Prediction(1.0, 3, None), Prediction(3.0, 1, None)]
    assert task.metrics(predictions, None, None) == {"perplexity": pytest.approx(math.exp(1.5))}
    with pytest.raises(ValueError, match="training has diverged"):
        task.metrics([Prediction(math.nan, 1, None)], None, None)


def test_perplexity_of_a_model_is_that_of_its_probabilities(tokenizer):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    task = of(max_length=6)
    blocks = task.features(
        Documents(["the film was good a book was bad the meal was fine"], "x"),
        tokenizer,
    )
    batch = task.collator(tokenizer)([blocks[0], blocks[1]])
    with torch.no_grad():
        prediction = task.predict(model, batch, tokenizer)
        chances = model(batch["input_ids"]).logits.log_softmax(-1)
    guessed = chances[:, :-1].gather(-1, batch["input_ids"][:, 1:, None])
    assert prediction.labels == guessed.numel() == 10
    expected = math.exp(-float(guessed.mean()))
    assert task.metrics([prediction], None, blocks)["perplexity"] == pytest.approx(
        expected, rel=1e-5
    )


def test_models_that_cannot(tokenizer):
    task = of(max_length=8)
    blocks = task.features(
        Documents(["the film was good a book was bad"], "x"), tokenizer, seed=SEED
    )
    task.check_model(LlamaForCausalLM(LlamaConfig(**SMALL)), blocks)
    with pytest.raises(ValueError, match="a bert model sees the tokens after"):
        task.check_model(BertLMHeadModel(BertConfig(**SMALL)), blocks)
    task.check_model(BertLMHeadModel(BertConfig(**SMALL, is_decoder=True)), blocks)
    short = LlamaForCausalLM(LlamaConfig(**SMALL | {"max_position_embeddings": 4}))
    with pytest.raises(ValueError, match="model's 4 positions: --max-length 4"):
        task.check_model(short, blocks)
