"""Questions out of SQuAD's own files and out of tables."""

import json

import pytest

from helpers.tasks import SEED, task_of
from sentei.tasks.answers import files
from sentei.tasks.answers.files import Answer

CONTEXT = "The tower, built in 1889, is 330 metres tall."


def of(**options):
    return task_of(kind="answers", **options)


def article(*questions, context=CONTEXT):
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": [*questions]}]}]}


def question(answers, **more):
    answers = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": "q1", "question": "When?", "answers": answers, **more}


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return _write


def test_both_versions_of_the_format(write):
    answer = ("1889", CONTEXT.index("1889"))
    rows = [question([answer]), question([], is_impossible=True)]
    questions = of(eval=write("dev.json", article(*rows))).load_evaluation((), SEED)
    assert questions.rows[0].answers == (Answer("1889", 20),)
    assert questions.rows[1].answers == ()
    assert "2 questions, 1 with an answer" in questions.source
    whole = of(eval=write("v1.json", article(rows[0]))).load_evaluation((), SEED)
    assert "with an answer" not in whole.source


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["1889"], "answer_start": [20]},
        [{"text": "1889", "answer_start": 20}],
        json.dumps({"text": ["1889"], "answer_start": [20]}),
    ],
)
def test_tables(write, answers):
    rows = [
        {"question": "When?", "context": CONTEXT, "answers": answers},
        {"question": "Who?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
    ]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    questions = of(eval=path).load_evaluation((), SEED)
    assert [row.answers for row in questions.rows] == [(Answer("1889", 20),), ()]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (article(question([("1889", 3)])), ("question q1", "'1889' is not in its context at 3")),
        (article(question([("1889", 3)])), ("it begins at 20",)),
        (article(question([("1888", 20)])), ("it is not in the context at all",)),
        (article(question([("1889", -4)])), ("at -4",)),
        (article(question([(" ", 20)])), ("question q1", "not a text and its place")),
        (article(question([("1889", 20)]), context=" "), ("context is ' ', not a text",)),
        ({"data": []}, ("holds no question",)),
        ({"rows": []}, ("SQuAD's format", "'data'", "paragraphs")),
        (article({"id": "q1", "question": "When?"}), ("it lacks 'answers'",)),
        ('{"data": [}', ("column 11", "not valid JSON")),
        ('[{"question": "When?", "context": "x"}]', ("no column 'answers'", "--answers-column")),
        (
            '[{"question": "When?", "context": "x", "answers": 7}]',
            ("item 1", "the answers are 7", "answer_start"),
        ),
        (
            '[{"question": "When?", "context": "x", "answers": {"text": ["y"]}}]',
            ("item 1", "must be lists alike"),
        ),
    ],
)
def test_bad_files(write, content, parts):
    path = write("a.json", content)
    with pytest.raises(ValueError) as caught:
        of(eval=path).load_evaluation((), SEED)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_a_context_is_set_aside_with_all_its_questions(write):
    paragraphs = [
        {"context": f"{CONTEXT} {i}", "qas": [question([("1889", 20)])] * 3} for i in range(20)
    ]
    path = write("a.json", {"data": [{"paragraphs": paragraphs}]})
    train, evaluation = of(train=path).load(SEED)
    assert (len(train), len(evaluation)) == (54, 6)
    ours, theirs = ({row.context for row in part.rows} for part in (train, evaluation))
    assert not ours & theirs
    assert "10% of a split, seed 42 by context, 6 questions" in evaluation.source


def test_nothing_to_learn(write):
    path = write("a.json", article(question([])))
    with pytest.raises(ValueError, match="no question has an answer"):
        of(train=path, eval=path).load(SEED)


def test_no_csv_answers_that_are_not_json():
    with pytest.raises(ValueError, match="neither JSON nor written by Python"):
        files.from_cells("in 1889", lambda reason: (_ for _ in ()).throw(ValueError(reason)))
    assert files.from_cells(" ", lambda reason: pytest.fail(reason)) == ()
