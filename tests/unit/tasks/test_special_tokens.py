"""Special tokens that a text writes out, and tokens that a model has no place for."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BartForQuestionAnswering,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5ForTokenClassification,
    pipeline,
)

from helpers import tokenizers
from helpers.tasks import task_of
from helpers.zoo import BART, T5
from sentei.tasks.answers.files import Answer, Question
from sentei.tasks.answers.task import Questions
from sentei.tasks.labelled_texts import LabelledTexts
from sentei.tasks.running_text import Documents
from sentei.tasks.summaries import SummaryPairs
from sentei.tasks.tagged_sentences import TaggedSentences

SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
}
SPECIAL = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "max_position_embeddings": 64,
}
WORDS = "[SEP] [CLS] [PAD] </s> <s> <pad> <unk> [MASK] zz"
"""What is a special token to one tokenizer or another."""

EXAMPLES = {
    "classification": LabelledTexts(
        [f"a film {WORDS} was good", "a meal", f"{WORDS} fine", f"fine {WORDS}"],
        None,
        [0, 1, 0, 1],
        ("x", "y"),
        "four",
    ),
    "tokens": TaggedSentences(
        [["a", *WORDS.split(), "film"], ["fine"]], [[0] * 10 + [1], [2]], ("O", "B-x", "I-x"), "two"
    ),
    "answers": Questions(
        [
            Question(f"what {WORDS} was", f"the {WORDS} film", (Answer("film", 5 + len(WORDS)),)),
            Question("what", "the film", (Answer("film", 4),)),
        ],
        "two",
    ),
    "language": Documents([f"the film {WORDS} was good " * 20], "one"),
    "masked-text": Documents([f"the film {WORDS} was good " * 20], "one"),
    "summaries": SummaryPairs([f"a {WORDS} film", "a meal"], [f"good {WORDS} x", "bad"], "two"),
}
BARTS = {
    "classification": BartForSequenceClassification,
    "answers": BartForQuestionAnswering,
    "summaries": BartForConditionalGeneration,
}
T5S = {
    "classification": T5ForSequenceClassification,
    "tokens": T5ForTokenClassification,
    "answers": T5ForQuestionAnswering,
    "summaries": T5ForConditionalGeneration,
}
BERTS = {
    "classification": BertForSequenceClassification,
    "tokens": BertForTokenClassification,
    "answers": BertForQuestionAnswering,
    "masked-text": BertForMaskedLM,
}
BLOCKS = ("language", "masked-text")


def build(kind, family, size=400):
    """A model of a family for a kind of task, and its tokenizer."""
    torch.manual_seed(0)
    labels = {"id2label": {number: f"L{number}" for number in range(3 if kind == "tokens" else 2)}}
    if family == "bart":
        config = BartConfig(**{**BART, **SPECIAL, **labels, "vocab_size": size})
        return BARTS[kind](config).eval(), tokenizers.byte_pairs()
    if family == "t5":
        ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        config = T5Config(**{**T5, **ends, **labels, "vocab_size": size})
        return T5S[kind](config).eval(), tokenizers.unigram()
    if family == "llama":
        config = LlamaConfig(**SMALL, vocab_size=size)
        return LlamaForCausalLM(config).eval(), tokenizers.bare_byte_pairs()
    config = BertConfig(**SMALL, **labels, vocab_size=size)
    return BERTS[kind](config).eval(), tokenizers.word_piece()


PAIRS = [
    *[(kind, "bart") for kind in BARTS],
    *[(kind, "t5") for kind in T5S],
    *[(kind, "bert") for kind in BERTS],
    ("language", "llama"),
]


@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_texts_with_special_tokens_are_learnt_and_measured(tmp_path, kind, family):
    model, tokenizer = build(kind, family)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    task, examples = task_of(kind=kind, max_length=64), EXAMPLES[kind]
    if kind in BLOCKS:
        task = task_of(kind=kind, max_length=16)
    if kind == "answers":
        task = task_of(kind=kind, max_length=64, doc_stride=4)
    processor = task.load_processor(str(tmp_path))
    features = task.features(examples, processor)
    task.check_model(model, features)
    batch = task.collator(processor)([features[i] for i in range(len(features))])
    assert torch.isfinite(model(**batch).loss)
    with torch.no_grad():
        prediction = task.predict(model, batch, processor)
    assert task.metrics([prediction], examples, features)


@pytest.mark.parametrize("family", ["bart", "t5", "bert"])
def test_the_saved_model_reads_a_text_in_pipeline_as_here(tmp_path, family):
    model, tokenizer = build("classification", family)
    model.save_pretrained(tmp_path / "given")
    tokenizer.save_pretrained(tmp_path / "given")
    task, examples = task_of(kind="classification", max_length=64), EXAMPLES["classification"]
    processor = task.load_processor(str(tmp_path / "given"))
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    features = task.features(examples, processor)
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    classify = pipeline("text-classification", str(tmp_path / "saved"), device="cpu")
    for number, text in enumerate(examples.texts):
        assert saved(text)["input_ids"] == features[number]["input_ids"]
        ids = torch.tensor([features[number]["input_ids"]])
        with torch.no_grad():
            scores = model(ids).logits.softmax(-1)[0]
        assert classify(text)[0]["score"] == pytest.approx(float(scores.max()), rel=1e-5)


def test_only_where_a_head_reads_the_end_token_texts_are_taken_apart(tmp_path):
    for kind, family in (("classification", "bert"), ("summaries", "bart"), ("answers", "bart")):
        model, tokenizer = build(kind, family)
        folder = tmp_path / f"{kind} {family}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        processor = task_of(kind=kind).load_processor(str(folder))
        assert processor(WORDS)["input_ids"] == tokenizer(WORDS)["input_ids"]


def test_the_place_of_no_answer_is_not_one_that_a_text_writes_out():
    tokenizer = tokenizers.word_piece()
    tokenizer.backend_tokenizer.post_processor = _behind()
    examples = Questions([Question("[CLS] what", "the [CLS] film", ())], "one")
    features = task_of(kind="answers", max_length=32, doc_stride=4).features(examples, tokenizer)
    [place] = features.nowhere
    assert place == len(features[0]["input_ids"]) - 1
    assert features[0]["input_ids"].count(tokenizer.cls_token_id) == 3


def _behind():
    """As XLNet: the token of no answer stands last."""
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(
        single="$A [SEP] [CLS]",
        pair="$A [SEP] $B [SEP] [CLS]",
        special_tokens=[("[SEP]", 3), ("[CLS]", 2)],
    )


def test_a_tokenizer_without_the_end_that_a_head_reads():
    model, _ = build("classification", "bart")
    task, tokenizer = task_of(kind="classification", max_length=64), tokenizers.bare_byte_pairs()
    features = task.features(EXAMPLES["classification"], tokenizer)
    with pytest.raises(ValueError, match="a bart model classifies by its end token, number 2"):
        task.check_model(model, features)


# ------------------------------------------------------------------------ beyond the embedding


@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_tokens_that_were_added_to_the_tokenizer_alone(tmp_path, kind, family):
    tokenizer = build(kind, family)[1]
    model = build(kind, family, size=len(tokenizer))[0]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = {"doc_stride": 4} if kind == "answers" else {}
    length = 16 if kind in BLOCKS else 64
    task = task_of(kind=kind, max_length=length, **options)
    tokenizer = task.load_processor(str(tmp_path))
    task.check_model(model, task.features(EXAMPLES[kind], tokenizer))
    tokenizer.add_tokens(["zz"])
    features = task.features(EXAMPLES[kind], tokenizer)
    with pytest.raises(ValueError, match=r"has embeddings for \d+: .*resize_token_embeddings"):
        task.check_model(model, features)
    model.resize_token_embeddings(len(tokenizer))
    task.check_model(model, features)


@pytest.mark.parametrize(("kind", "family"), [one for one in PAIRS if one[0] not in BLOCKS])
def test_padding_that_was_added_to_the_tokenizer_alone(kind, family):
    tokenizer = build(kind, family)[1]
    model = build(kind, family, size=len(tokenizer))[0]
    tokenizer.add_special_tokens({"pad_token": "[fill]"})
    options = {"doc_stride": 4} if kind == "answers" else {}
    task = task_of(kind=kind, max_length=64, **options)
    features = task.features(EXAMPLES[kind], tokenizer)
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        task.check_model(model, features)


def test_targets_of_summaries_are_looked_up_too():
    tokenizer = build("summaries", "bart")[1]
    model = build("summaries", "bart", size=len(tokenizer))[0]
    tokenizer.add_tokens(["marvellous"])
    task = task_of(kind="summaries", max_length=64)
    features = task.features(SummaryPairs(["a film"], ["marvellous"], "one"), tokenizer)
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        task.check_model(model, features)


def test_parts_of_a_pair_that_a_model_does_not_know():
    tokenizer = tokenizers.word_piece()
    config = BertConfig(**SMALL, vocab_size=len(tokenizer), type_vocab_size=1)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    task = task_of(kind="classification", max_length=64)
    pairs = LabelledTexts(["a", "b"], ["c", "d"], [0, 1], ("x", "y"), "two")
    with pytest.raises(ValueError, match="parts of a pair numbers up to 1, and the model knows 1"):
        task.check_model(BertForSequenceClassification(config), task.features(pairs, tokenizer))


def test_a_command_says_it_before_training(tmp_path, data, tiny_model):
    from transformers import AutoModel

    from sentei import magnitude, serialization
    from sentei.run.evaluate import evaluate_saved
    from sentei.run.options import settings_from
    from sentei.run.prepare import prepare

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["the film"])
    AutoModel.from_pretrained(tiny_model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    given = {"model": str(tmp_path), "train": data["train"], "eval": data["eval"], "epochs": 9}
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        prepare(settings_from(given, serialization.to_dict(magnitude(0.5))))
    names = {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}}
    config = BertConfig.from_pretrained(tiny_model, **names)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        evaluate_saved(settings_from({"model": str(tmp_path), "eval": data["eval"]}, {}))


def test_a_teacher_with_fewer_tokens_is_named(tmp_path, data, tiny_model):
    from sentei import knowledge_aware, serialization
    from sentei.run.options import settings_from
    from sentei.run.prepare import prepare

    names = {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}}
    config = BertConfig.from_pretrained(tiny_model, **names)
    config.vocab_size -= 1
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    given = {
        "model": str(tiny_model),
        "teacher": str(tmp_path),
        "train": data["train"],
        "eval": data["eval"],
        "epochs": 20,
    }
    recipe = serialization.to_dict(knowledge_aware(0.5, stages=10))
    with pytest.raises(ValueError, match=r"--teacher .*has embeddings for \d+"):
        prepare(settings_from(given, recipe))


# ---------------------------------------------------------------------------------- long texts


@pytest.mark.parametrize(("kind", "family"), [one for one in PAIRS if one[0] not in BLOCKS])
def test_of_a_long_text_a_tokenizer_sees_the_beginning(monkeypatch, kind, family):
    _, tokenizer = build(kind, family)
    seen = []
    original = type(tokenizer)._encode_plus

    def counting(self, text, *args, **kwargs):
        seen.append(_characters(text) + _characters(kwargs.get("text_pair")))
        return original(self, text, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "_encode_plus", counting)
    long = "a good film " * 40_000
    examples = {
        "classification": LabelledTexts([long], [long], [0], ("x", "y"), "one"),
        "tokens": TaggedSentences([long.split()], [[0] * 120_000], ("O", "B-x", "I-x"), "one"),
        "answers": Questions([Question("what", "a film", ())], "one"),
        "summaries": SummaryPairs([long], [long], "one"),
    }[kind]
    options = {"doc_stride": 4} if kind == "answers" else {}
    task_of(kind=kind, max_length=64, **options).features(examples, tokenizer)
    assert seen and sum(seen) < 40_000


def _characters(text):
    if text is None:
        return 0
    return len(text) if isinstance(text, str) else sum(map(_characters, text))


def test_a_question_without_an_end_is_refused():
    tokenizer = tokenizers.word_piece()
    examples = Questions([Question("what " * 500_000, "a film", ())], "one")
    with pytest.raises(ValueError, match=r"has [\d,]+ tokens or more, which leaves 0"):
        task_of(kind="answers", max_length=64, doc_stride=4).features(examples, tokenizer)
