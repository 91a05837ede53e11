import json

import pytest

from helpers.tasks import SEED, task_of
from sentei.tasks.tagged_sentences import TaggedSentences
from sentei.tasks.tagging import span_scores
from sentei.tasks.task import Prediction

pytest.importorskip("seqeval")

NAMES = ("O", "B-loc", "I-loc", "B-per", "I-per")


def of(**options):
    return task_of(kind="tokens", **options)


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.write_text(content)
        return path

    return _write


def load(path, **given):
    return of(eval=path, **given).load_evaluation(NAMES, SEED)


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("name", "content", "given"),
    [
        ("a.conll", "Ann\tB-per\nLee\tI-per\n\nin\tO\nRome\tB-loc\n", {}),
        # WNUT 17: a line with only a tab ends a sentence; so do several empty ones
        ("a.conll", "\nAnn\tB-per\nLee\tI-per\n\t\n\n\nin\tO\nRome\tB-loc", {}),
        ("a.annotated", "Ann\tB-per\r\nLee\tI-per\r\n\r\nin\tO\r\nRome\tB-loc\r\n", {}),
        # CoNLL 2003: four columns, blanks between them, marks between documents
        (
            "a.txt",
            "-DOCSTART- -X- O O\n\nAnn NNP B-NP B-per\nLee NNP I-NP I-per\n\n"
            "-DOCSTART- -X- O O\n\nin IN B-PP O\nRome NNP B-NP B-loc\n",
            {},
        ),
        (
            "a.tsv",
            "B-per\tx\tAnn\nI-per\tx\tLee\n\nO\tx\tin\nB-loc\tx\tRome\n",
            {"tokens_column": "3", "tags_column": "1"},
        ),
        (
            "a.conll",
            "Ann;B-per\nLee;I-per\n\nin;O\nRome;B-loc\n",
            {"delimiter": ";"},
        ),
        (
            "a.jsonl",
            '{"tokens": ["Ann", "Lee"], "tags": ["B-per", "I-per"]}\n'
            '{"tokens": ["in", "Rome"], "tags": ["O", "B-loc"]}\n',
            {},
        ),
        (
            "a.json",
            json.dumps(
                [
                    {"words": ["Ann", "Lee"], "ner": ["B-per", "I-per"]},
                    {"words": ["in", "Rome"], "ner": ["O", "B-loc"]},
                ]
            ),
            {"tokens_column": "words", "tags_column": "ner"},
        ),
    ],
)
def test_every_format_gives_the_same_sentences(write, name, content, given):
    examples = load(write(name, content), **given)
    assert examples.sentences == [["Ann", "Lee"], ["in", "Rome"]]
    assert examples.tags == [[3, 4], [0, 1]]
    assert "2 sentences" in examples.source


def test_every_entity_has_both_tags_and_o_comes_first(write):
    train = write("a.conll", "Ann\tB-per\n\nin\tO\nRome\tB-loc\n")
    evaluation = write("b.conll", "New\tB-loc\nYork\tI-loc\n")
    parts = of(train=train, eval=evaluation).load(SEED)
    assert parts[0].label_names == NAMES == parts[1].label_names
    assert parts[1].tags == [[1, 2]]
    assert parts[0].counts() == {"B-per": 1, "O": 1, "B-loc": 1}


def test_some_sentences_are_set_aside(write):
    path = write("a.conll", "".join(f"word{i}\tO\nRome\tB-loc\n\n" for i in range(40)))
    train, evaluation = of(train=path).load(SEED)
    assert (len(train), len(evaluation)) == (36, 4)
    assert "10% of a split, seed 42, 4 sentences" in evaluation.source


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.conll", "Ann\tB-per\nLee\tPER\n", ("line 2", "'PER' of 'Lee'", "not BIO", "B-...")),
        ("a.conll", "Ann\tS-per\n", ("line 1", "'S-per'", "not BIO")),
        ("a.conll", "Ann\tB-\n", ("line 1", "'B-'", "not BIO")),
        ("a.conll", "Ann\tB-per\nLee\n", ("line 2", "1 column", "--tags-column")),
        ("a.conll", "Ann\tO\n", ("every tag is O", "nothing to find")),
        ("a.conll", "\n \n", ("is empty",)),
        ("a.csv", "Ann,B-per\n", ("a token a line", ".conll", "not from .csv")),
        ("a.jsonl", '{"tokens": ["Ann"], "tags": ["B-per", "O"]}', ("1 token and 2 tags",)),
        ("a.jsonl", '{"tokens": "Ann", "tags": ["O"]}', ("'Ann'", "not a list of texts")),
        ("a.jsonl", '{"tokens": ["Ann"], "tags": [1]}', ("the tag 1 of 'Ann'", "not a name")),
        ("a.jsonl", '{"tokens": [""], "tags": ["O"]}', ("the token '' is not a word",)),
        ("a.jsonl", '{"words": ["Ann"], "tags": ["O"]}', ("no column 'tokens'", "--tokens-column")),
    ],
)
def test_bad_files(write, name, content, parts):
    path = write(name, content)
    with pytest.raises(ValueError) as caught:
        load(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_columns_of_a_conll_file_are_numbers(write):
    path = write("a.conll", "Ann\tB-per\n")
    with pytest.raises(ValueError, match="--tags-column ner: a file of columns has no names"):
        load(path, tags_column="ner")


def test_a_tag_that_the_model_does_not_know(write):
    with pytest.raises(ValueError, match=r"label 'B-org' \(1 row\).*'O', 'B-loc'"):
        load(write("a.conll", "Acme\tB-org\n"))


# ------------------------------------------------------------------------- features, scores


def pieces(tiny_model, sentences, tags, **given):
    task = of(**given)
    examples = TaggedSentences(sentences, tags, NAMES, "two")
    return task, examples, task.features(examples, task.load_processor(tiny_model), seed=SEED)


def test_the_first_piece_of_a_word_has_its_tag(tiny_model):
    # "good-film" is three pieces; a space is none at all
    sentences = [["the", "good-film", " ", "was"], ["a"]]
    _, _, features = pieces(tiny_model, sentences, [[0, 1, 2, 3], [4]])
    assert features[0]["labels"] == [-100, 0, 1, -100, -100, 3, -100]
    assert features[1]["labels"] == [-100, 4, -100]
    assert features.words[0] == [0, 1, 3] and features.words[1] == [0]
    assert list(features.lengths) == [7, 3]


def test_words_that_the_model_does_not_see_count_as_untagged(tiny_model):
    sentences = [["the", "film", "was", "good", "was"], ["a"]]
    tags = [[0, 1, 2, 3, 4], [1]]
    task, examples, features = pieces(tiny_model, sentences, tags, max_length=5)
    assert features[0]["labels"] == [-100, 0, 1, 2, -100]
    seen = [[tags[i][word] for word in features.words[i]] for i in range(2)]
    predictions = [Prediction(0.0, 1, seen[:1]), Prediction(0.0, 1, seen[1:])]
    measured = task.metrics(predictions, examples, features)
    # three spans are true; the two that are seen whole are found
    assert measured == pytest.approx(
        {"f1": 0.8, "precision": 1, "recall": 2 / 3, "accuracy": 4 / 6}
    )


def test_a_byte_level_tokenizer_takes_words(tmp_path):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    built = ByteLevelBPETokenizer()
    built.train_from_iterator(["the film was good"] * 9, vocab_size=300, min_frequency=1)
    built.save_model(str(tmp_path))
    RobertaTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path)
    _, _, features = pieces(tmp_path, [["the", "film"]], [[1, 2]])
    assert [label for label in features[0]["labels"] if label != -100] == [1, 2]


def test_span_scores_by_hand():
    truth = [["B-per", "I-per", "O", "B-loc"], ["O", "B-loc", "I-loc"]]
    predicted = [["B-per", "I-per", "O", "B-per"], ["B-loc", "B-loc", "O"]]
    # found 4 spans (per 0-1, per 3, loc 0, loc 1), true are 3, right is 1 (per 0-1)
    assert span_scores(truth, predicted) == pytest.approx(
        {"precision": 1 / 4, "recall": 1 / 3, "f1": 2 / 7, "accuracy": 4 / 7}
    )


def test_an_i_that_continues_nothing_begins_a_span():
    assert span_scores([["O", "B-loc"]], [["O", "I-loc"]])["f1"] == 1


def test_no_span_found_is_zero():
    assert span_scores([["B-loc"]], [["O"]]) == {
        "f1": 0,
        "precision": 0,
        "recall": 0,
        "accuracy": 0,
    }
