import json

import pytest

from sentei.run.settings import Settings
from sentei.tasks import kinds
from sentei.tasks.answers import scores as squad
from sentei.tasks.answers.scores import Answer, Prediction, exact, f1, normalise, scores

CONTEXT = "The tower, built in 1889, is 330 metres tall."


def of(**given):
    return kinds.of(Settings(model="m", recipe={}, kind="answers", **given))


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


# ------------------------------------------------------------------------------------ scores


def test_texts_are_compared_without_case_punctuation_articles_and_space():
    assert normalise(" The  Eiffel-Tower, (an) answer! ") == "eiffeltower answer"
    assert normalise("theatre a bandana") == "theatre bandana"
    assert exact("the TOWER.", ["A tower"]) == 1
    assert exact("", []) == 1 and exact("x", []) == 0


def test_f1_by_hand():
    # 2 words in common, of 3 and of 4 (the article is no word): 2 · 2 / 7
    assert f1("built in Paris", ["was built in the year 1889"]) == pytest.approx(4 / 8)
    assert f1("built in Paris", ["built in 1889 the"]) == pytest.approx(4 / 6)
    assert f1("red red blue", ["red blue blue"]) == pytest.approx(4 / 6)  # words are counted
    assert f1("x", ["y", "x z"]) == pytest.approx(2 / 3)  # the nearest of several
    assert f1("x", []) == 0 and f1("", []) == 1 and f1("", ["x"]) == 0


def test_gold_answers_score_all_and_changed_ones_what_a_hand_computes():
    truth = [["1889"], ["330 metres", "330"], ["the tower"], ["in 1889"]]
    assert scores([Prediction(texts[0]) for texts in truth], truth) == {"f1": 1, "exact_match": 1}
    given = ["in 1889", "the 330.", "tower", ""]
    # 2/3, 1, 1, 0
    assert scores([Prediction(text) for text in given], truth) == pytest.approx(
        {"f1": (2 / 3 + 2) / 4, "exact_match": 2 / 4}
    )


def test_no_answer_wins_above_the_threshold():
    truth = [["1889"], ["330"], [], []]
    given = [Prediction("1889", -2), Prediction("331", -1), Prediction("x", 3), Prediction("y", -3)]
    # at 0: right, wrong, withheld and right, given and wrong
    # the best threshold lies between -3 and ... : y is given (-1), 1889 (+1), 331 (0); x withheld
    assert scores(given, truth) == pytest.approx(
        {"f1": 0.5, "exact_match": 0.5, "best_f1": 0.5, "best_exact_match": 0.5}
    )
    assert scores(given, truth, threshold=-2.5)["exact_match"] == 1 / 4
    assert scores(given, truth, threshold=5)["exact_match"] == 1 / 4
    better = [Prediction("1889", -9), *given[1:]]
    assert scores(better, truth)["exact_match"] == 0.5
    assert scores(better, truth)["best_exact_match"] == 3 / 4  # only 1889 is given


def test_true_answers_of_articles_alone_are_passed_over():
    assert scores([Prediction("", 1.0), Prediction("x")], [[], ["the", "x"]])["exact_match"] == 1


# ------------------------------------------------------------------------------------- files


def test_both_versions_of_the_format(write):
    answer = ("1889", CONTEXT.index("1889"))
    rows = [question([answer]), question([], is_impossible=True)]
    found = of(eval=write("dev.json", article(*rows))).load_evaluation(())
    assert found.rows[0].answers == (Answer("1889", 20),)
    assert found.rows[1].answers == ()
    assert "2 questions, 1 with an answer" in found.source
    whole = of(eval=write("v1.json", article(rows[0]))).load_evaluation(())
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
    found = of(eval=path).load_evaluation(())
    assert [row.answers for row in found.rows] == [(Answer("1889", 20),), ()]


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
        ('{"data": [}', ("line 1", "not valid JSON")),
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
        of(eval=path).load_evaluation(())
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_a_context_is_set_aside_with_all_its_questions(write):
    paragraphs = [
        {"context": f"{CONTEXT} {i}", "qas": [question([("1889", 20)])] * 3} for i in range(20)
    ]
    path = write("a.json", {"data": [{"paragraphs": paragraphs}]})
    train, evaluation = of(train=path).load()
    assert (len(train), len(evaluation)) == (54, 6)
    ours, theirs = ({row.context for row in part.rows} for part in (train, evaluation))
    assert not ours & theirs
    assert "10% of a split, seed 42 by context, 6 questions" in evaluation.source


def test_nothing_to_learn(write):
    path = write("a.json", article(question([])))
    with pytest.raises(ValueError, match="no question has an answer"):
        of(train=path, eval=path).load()


def test_no_csv_answers_that_are_not_json():
    with pytest.raises(ValueError, match="which is not JSON"):
        squad.from_cells("in 1889", lambda reason: (_ for _ in ()).throw(ValueError(reason)))
    assert squad.from_cells(" ", lambda reason: pytest.fail(reason)) == ()
