import numpy as np
import pytest
from transformers import AutoTokenizer

from helpers.tasks import task_of
from sentei.tasks.answers.files import Answer, Question
from sentei.tasks.answers.task import Questions
from sentei.tasks.answers.windows import Span, best_span, token_span, windows

CONTEXT = "the film was good a book was bad the meal was fine"  # 12 words, a piece each


def ask(text=None):
    answers = (Answer(text, CONTEXT.index(text)),) if text else ()
    return Question("was good", CONTEXT, answers)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def words(tokenizer, features, i):
    return tokenizer.convert_ids_to_tokens(features[i]["input_ids"])


def test_a_short_context_is_one_window(tokenizer):
    features = windows([ask("a book"), ask()], tokenizer, 32, 4)
    assert len(features) == 2 and features.question == [0, 1]
    row = features[0]
    assert words(tokenizer, features, 0)[row["start_positions"]] == "a"
    assert words(tokenizer, features, 0)[row["end_positions"]] == "book"
    assert (
        features[1]["start_positions"] == features[1]["end_positions"] == 0 == features.nowhere[1]
    )
    offsets = features.offsets(0)
    assert offsets[:4].tolist() == [[-1, -1]] * 4 and offsets[-1].tolist() == [-1, -1]
    assert CONTEXT[slice(*offsets[5])] == "film"


def test_long_contexts_overlap(tokenizer):
    # 10 tokens are [CLS], 2 of the question, 2 [SEP] and 5 of the context; 2 are shared
    features = windows([ask("good a")], tokenizer, 10, 2)
    parts = [words(tokenizer, features, i)[4:-1] for i in range(len(features))]
    text = CONTEXT.split()
    assert parts == [text[0:5], text[3:8], text[6:11], text[9:12]]
    places = [(features[i]["start_positions"], features[i]["end_positions"]) for i in range(4)]
    # in the windows that hold it whole, else nowhere
    assert places == [(7, 8), (4, 5), (0, 0), (0, 0)]
    assert features.summary == "4 windows of 1 question"


def test_answers_at_window_ends_and_inside_words():
    offsets = np.array([[-1, -1], [0, 3], [4, 8], [9, 12], [-1, -1]])
    assert token_span([Answer("x" * 12, 0)], offsets) == (1, 3)
    assert token_span([Answer("xx", 5)], offsets) == (2, 2)
    assert token_span([Answer("xxx", 7)], offsets) == (2, 3)
    assert token_span([Answer("xx", 11)], offsets) is None
    assert token_span([], offsets) is None


def test_no_room(tokenizer):
    with pytest.raises(
        ValueError, match=r"'was good' has 2 tokens, which leaves 5 of --max-length"
    ):
        windows([ask()], tokenizer, 10, 5)
    with pytest.raises(ValueError, match="max_length is 4096 tokens"):
        windows([ask()], tokenizer, 4096, 5)


def test_the_best_span_by_hand():
    offsets = np.array([[-1, -1], [0, 3], [4, 8], [9, 12], [13, 15]])
    starts = np.array([9, 1, 2, 0, 3], np.float32)
    ends = np.array([9, 0, 1, 4, -5], np.float32)
    # the place outside the context scores most and is none; 2 + 4 is tokens 2 to 3
    assert best_span(starts, ends, offsets, longest=30) == Span(6, 4, 12)
    # an answer of one token: 0 + 4 at token 3
    assert best_span(starts, ends, offsets, longest=1) == Span(4, 9, 12)
    backwards = np.array([0, 0, 0, 0, 9], np.float32), np.array([0, 9, 0, 0, 0], np.float32)
    assert best_span(*backwards, offsets, longest=30).score == 9  # one of the two, not both
    assert best_span(*backwards, offsets, longest=30, candidates=1) is None


def test_the_best_over_all_windows_of_a_question(tokenizer):
    task = task_of(kind="answers", max_length=10, doc_stride=2)
    examples = Questions([ask("good a"), ask()], "two")
    features = task.features(examples, tokenizer)
    assert features.question == [0, 0, 0, 0, 1, 1, 1, 1]
    logits = [np.zeros((2, len(features[i]["input_ids"])), np.float32) for i in range(8)]
    logits[1][0, 4], logits[1][1, 5] = 3, 4  # "good a", in the second window
    for i in range(4):
        logits[i][:, 0] = 1, 1 + i  # no answer scores 2, 3, 4, 5: the least counts
    for i in range(4, 8):
        logits[i][:, 0] = 5, 5
    best = task.best_answers([tuple(pair) for pair in logits], examples, features)
    assert (best[0].text, best[0].no_answer) == ("good a", 2 - 7)
    assert best[1].no_answer == 10
