import pytest

from sentei.tasks.answers.scores import BestAnswer, exact, f1, normalise, scores


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
    assert scores([BestAnswer(texts[0]) for texts in truth], truth) == {"f1": 1, "exact_match": 1}
    given = ["in 1889", "the 330.", "tower", ""]
    # 2/3, 1, 1, 0
    assert scores([BestAnswer(text) for text in given], truth) == pytest.approx(
        {"f1": (2 / 3 + 2) / 4, "exact_match": 2 / 4}
    )


def test_no_answer_wins_above_the_threshold():
    truth = [["1889"], ["330"], [], []]
    given = [BestAnswer("1889", -2), BestAnswer("331", -1), BestAnswer("x", 3), BestAnswer("y", -3)]
    # at 0: right, wrong, withheld and right, given and wrong
    # the best threshold lies between -3 and ... : y is given (-1), 1889 (+1), 331 (0); x withheld
    assert scores(given, truth) == pytest.approx(
        {"f1": 0.5, "exact_match": 0.5, "best_f1": 0.5, "best_exact_match": 0.5}
    )
    assert scores(given, truth, threshold=-2.5)["exact_match"] == 1 / 4
    assert scores(given, truth, threshold=5)["exact_match"] == 1 / 4
    better = [BestAnswer("1889", -9), *given[1:]]
    assert scores(better, truth)["exact_match"] == 0.5
    assert scores(better, truth)["best_exact_match"] == 3 / 4  # only 1889 is given


def test_true_answers_of_articles_alone_are_passed_over():
    assert scores([BestAnswer("", 1.0), BestAnswer("x")], [[], ["the", "x"]])["exact_match"] == 1
