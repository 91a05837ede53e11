import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
)

from helpers import tokenizers
from helpers.tasks import SEED, task_of
from sentei.models.loading import Head, load_model
from sentei.tasks.masked_blocks import IGNORED, Masking
from sentei.tasks.running_text import Documents
from sentei.tasks.task import Prediction

SMALL = dict(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
)
TEXT = "the film was good a book was bad the meal was fine"


def of(**options):
    return task_of(kind="masked-text", **options)


def texts(*rows):
    return Documents(list(rows), "some")


def features(tokenizer, *rows, seed=None, **options):
    return of(**options).features(texts(*rows), tokenizer, seed=seed)


def whole(row):
    """A block as it was before it was masked."""
    return np.where(row["labels"] == IGNORED, row["input_ids"], row["labels"])


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_blocks_stand_between_special_tokens_and_lose_none(tokenizer):
    blocks = features(tokenizer, "the film was", "good a book\nwas bad", " \n", max_length=6)
    told = [tokenizer.convert_ids_to_tokens(whole(row)) for row in blocks]
    assert told == [
        ["[CLS]", "the", "film", "was", "[SEP]", "[SEP]"],
        ["[CLS]", "good", "a", "book", "was", "[SEP]"],
    ]
    assert blocks.summary == "2 blocks of 6 tokens" and list(blocks.lengths) == [6, 6]
    batch = of().collator(tokenizer)([blocks[0], blocks[1]])
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 6)
    with pytest.raises(ValueError, match=r"some: 4 tokens do not fill one block of 8, of which 2"):
        features(tokenizer, "the film was", max_length=8)


@pytest.mark.parametrize("family", ["word pieces", "byte pairs"])
def test_special_tokens_are_never_masked(family):
    tokenizer = tokenizers.ALL[family]()
    mask, end = tokenizer.mask_token, tokenizer.sep_token
    blocks = features(tokenizer, f"the film {mask} {end} good " * 200, max_length=16, seed=SEED)
    special = set(tokenizer.all_special_ids)
    for row in blocks:
        guessed = row["labels"] != IGNORED
        assert guessed.any() and not special & set(row["labels"][guessed])
        assert whole(row)[[0, -1]].tolist() == tokenizer("")["input_ids"]


def test_shares_are_those_of_bert_and_of_transformers_collator(tokenizer):
    def shares(shown, labels):
        guessed = labels != IGNORED
        kept = (shown == labels)[guessed].mean()
        masked = (shown == tokenizer.mask_token_id)[guessed].mean()
        return guessed.mean(), masked, kept

    ids = np.random.default_rng(0).integers(5, len(tokenizer), (1, 200_000))
    masking = Masking.of(tokenizer, 0.15, whole_words=False)
    words = np.arange(ids.shape[1])
    ours = shares(*masking.apply(ids[0], words, np.random.default_rng(1)))
    collator = DataCollatorForLanguageModeling(tokenizer, return_tensors="np", seed=1)
    collator.create_rng()
    theirs = shares(*collator.numpy_mask_tokens(ids.copy(), special_tokens_mask=0 * ids))
    # a token drawn in another's place may be that one: 10 % and one of the vocabulary's share
    expected = (0.15, 0.8, 0.1 + 0.1 / (len(tokenizer) - 5))
    assert ours == pytest.approx(expected, abs=0.01)
    assert theirs == pytest.approx(expected, abs=0.02)


def test_a_tiny_probability_still_masks_a_token_of_every_block(tokenizer):
    blocks = features(tokenizer, TEXT * 20, max_length=6, mask_probability=1e-9)
    assert all((row["labels"] != IGNORED).sum() == 1 for row in blocks)


@pytest.mark.parametrize("family", ["word pieces", "byte pairs"])
def test_whole_words_are_masked_as_a_whole(family):
    tokenizer = tokenizers.ALL[family]()
    text = "uninhabitable films, unfilmable books; don't eat 1,234 meals " * 20
    numbers = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False).word_ids())
    options = {"max_length": 32, "mask_probability": 0.3, "seed": SEED}

    def torn(blocks):
        """Words of which some tokens are masked and others are not."""
        count = 0
        for at, row in enumerate(blocks):
            words = numbers[30 * at : 30 * (at + 1)]
            guessed = (row["labels"] != IGNORED)[1:-1]
            maskable = ~np.isin(whole(row)[1:-1], tokenizer.all_special_ids)
            for word in np.unique(words):
                count += len({*guessed[(words == word) & maskable].tolist()}) > 1
        return count

    assert torn(features(tokenizer, text, whole_words=True, **options)) == 0
    assert torn(features(tokenizer, text, **options)) > 10


def test_training_masks_are_new_in_every_epoch_and_those_to_evaluate_on_never(tokenizer):
    def masks(blocks):
        return [(row["input_ids"].tolist(), row["labels"].tolist()) for row in blocks]

    def made(seed):
        return features(tokenizer, TEXT * 20, max_length=16, seed=seed)

    train, evaluation = made(SEED), made(None)
    first, fixed = masks(train), masks(evaluation)
    train.set_epoch(1)
    evaluation.set_epoch(1)
    second = masks(train)
    assert first != second and masks(evaluation) == fixed
    assert [whole(row).tolist() for row in train] == [whole(row).tolist() for row in evaluation]
    again = made(SEED)
    again.set_epoch(1)  # as a run that goes on: from any block, in any order
    assert [masks([again[i]])[0] for i in reversed(range(len(again)))] == second[::-1]
    assert masks(made(SEED + 1)) != first


def test_masks_do_not_depend_on_who_loads_them(tokenizer):
    blocks = features(tokenizer, TEXT * 20, max_length=16, seed=SEED)
    blocks.set_epoch(3)
    collator = of().collator(tokenizer)

    def shown(workers, size):
        batches = DataLoader(blocks, size, collate_fn=collator, num_workers=workers)
        return torch.cat([batch["input_ids"] for batch in batches])

    assert torch.equal(shown(0, 4), shown(2, 4)) and torch.equal(shown(0, 4), shown(0, 3))


def test_metrics_by_hand():
    task = of()
    # 3 tokens at 1 nat, 2 of them right, and 1 at 3, wrong
    predictions = [Prediction(1.0, 3, 2), Prediction(3.0, 1, 0)]
    metrics = task.metrics(predictions, None, None)
    assert metrics == {"perplexity": pytest.approx(math.exp(1.5)), "accuracy": 0.5}
    assert next(iter(of(metric="accuracy").metrics(predictions, None, None))) == "accuracy"
    with pytest.raises(ValueError, match="training has diverged"):
        task.metrics([Prediction(math.nan, 1, 0)], None, None)


def test_metrics_of_a_model_are_those_of_its_probabilities_in_batches_of_any_size(tokenizer):
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SMALL)).eval()
    task = of(max_length=8)
    blocks = task.features(texts(TEXT * 4), tokenizer)
    rows = [blocks[i] for i in range(len(blocks))]

    def measured(size):
        batches = [task.collator(tokenizer)(rows[i : i + size]) for i in range(0, len(rows), size)]
        with torch.no_grad():
            predictions = [task.predict(model, batch, tokenizer) for batch in batches]
        return task.metrics(predictions, None, blocks)

    losses, right = [], []
    for row in rows:
        with torch.no_grad():
            chances = model(torch.from_numpy(row["input_ids"])[None]).logits[0].log_softmax(-1)
        for at in np.flatnonzero(row["labels"] != IGNORED):
            losses.append(-float(chances[at, row["labels"][at]]))
            right.append(int(chances[at].argmax()) == row["labels"][at])
    expected = {"perplexity": math.exp(np.mean(losses)), "accuracy": np.mean(right)}
    for size in (1, 3, len(rows)):
        assert measured(size) == pytest.approx(expected, rel=1e-5)


def test_tokenizers_and_texts_that_cannot(tokenizer):
    with pytest.raises(ValueError, match=r"has no mask token.*name one that is, such as BERT"):
        features(tokenizers.bare_byte_pairs(), TEXT, max_length=8)
    with pytest.raises(ValueError, match="some: 0 tokens do not fill one block"):
        features(tokenizer, "", " \n", max_length=8)
    pieces = tokenizers.byte_pairs()
    with pytest.raises(ValueError, match="is one word, which --whole-words would mask whole"):
        features(pieces, "unfilmable" * 20, max_length=16, whole_words=True)
    assert len(features(pieces, "unfilmable" * 20, max_length=16))
    with pytest.raises(ValueError, match="holds only special and unknown tokens"):
        features(tokenizer, "電影" * 20, max_length=8)


def test_options_that_cannot():
    for probability in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match="--mask-probability"):
            of(mask_probability=probability)
    with pytest.raises(ValueError, match="--whole-words: not read by --kind language"):
        task_of(kind="language", whole_words=True)


def test_models_that_cannot(tokenizer, tmp_path):
    task = of(max_length=16)
    blocks = task.features(texts(TEXT * 4), tokenizer)
    task.check_model(BertForMaskedLM(BertConfig(**SMALL)), blocks)
    short = BertForMaskedLM(BertConfig(**SMALL | {"max_position_embeddings": 8}))
    with pytest.raises(ValueError, match="model's 8 positions: use --max-length 8"):
        task.check_model(short, blocks)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 40}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    bart = BartForConditionalGeneration(BartConfig(**sizes, **heads))
    with pytest.raises(ValueError, match="a bart model writes its answers one after another"):
        task.check_model(bart, blocks)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40, **ends)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    head = Head(task.model_class, {}, "--kind masked-text")
    with pytest.raises(ValueError, match="a gpt2 model is none for --kind masked-text: transform"):
        load_model(str(tmp_path), head)
