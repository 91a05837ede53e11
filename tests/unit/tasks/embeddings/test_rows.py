import json

import pytest

from helpers.tasks import SEED
from helpers.tasks import task_of as of
from sentei.tasks.embeddings.rows import PASSAGE, QUERY


def written(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder, *rows, **options):
    task = of(kind="embeddings", train=written(folder, *rows), **options)
    return task.load_training()


PAIR = {"sentence1": "a b", "sentence2": "b a"}
ROW = {"query": "who", "positive": "me"}


@pytest.mark.parametrize(
    ("row", "options", "texts", "score"),
    [
        ({"text": "a b"}, {}, ("a b",), None),
        ({"sentence": "a b", "label": "x"}, {}, ("a b",), None),
        (PAIR, {}, ("a b", "b a"), None),
        (PAIR | {"score": 2.5}, {}, ("a b", "b a"), 2.5),
        (PAIR | {"label": "3"}, {}, ("a b", "b a"), 3.0),
        (PAIR | {"mine": 1}, {"label_column": "mine"}, ("a b", "b a"), 1.0),
        (ROW, {}, ("who", "me"), None),
        (ROW | {"negative": "you"}, {}, ("who", "me", "you"), None),
        ({"question": "who", "answer": "me"}, {}, ("who", "me"), None),
        (
            {"q": "who", "p": "me", "n": "you"},
            {"text_column": "q", "pair_column": "p", "negative_column": "n"},
            ("who", "me", "you"),
            None,
        ),
    ],
)
def test_columns_say_what_rows_are(tmp_path, row, options, texts, score):
    examples = read(tmp_path, row, row, **options)
    assert examples.rows == [texts] * 2
    assert examples.scores == (None if score is None else [score] * 2)
    assert examples.answers == (len(texts) > 1 and score is None)
    roles = (QUERY, PASSAGE, PASSAGE)[: len(texts)] if examples.answers else ((),) * len(texts)
    assert examples.roles == roles


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"title": "a"}, {}, r"not obvious which columns hold the texts. Its columns are 'title'"),
        (PAIR | ROW, {}, "not obvious which columns"),
        (PAIR | {"score": "high"}, {}, "line 1: the score 'high' is not a number"),
        (PAIR | {"score": None}, {}, "line 1: the score None is not a number"),
        (PAIR | {"sentence2": " "}, {}, "line 1: the text in column 'sentence2' is empty"),
        ({"text": ""}, {}, "line 1: the text in column 'text' is empty"),
        ({"text": 3}, {}, "holds 3, which is not a text"),
        ({"text": "a"}, {"label_column": "text"}, "scores belong to pairs of texts"),
        ({"text": "a"}, {"text_column": "texts"}, "no column 'texts'; did you mean 'text'"),
    ],
)
def test_what_cannot_be_used(tmp_path, row, options, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, row, **options)


def test_infinite_scores_are_refused(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("sentence1,sentence2,score\na,b,1\na,b,inf\n")
    with pytest.raises(ValueError, match="line 3: the score is inf"):
        of(kind="embeddings", train=file).load_training()


def test_rows_of_a_query_are_set_aside_together(tmp_path):
    rows = [{"query": f"q{i % 20}", "positive": f"p{i}"} for i in range(100)]
    train, aside = of(kind="embeddings", train=written(tmp_path, *rows)).load(SEED)
    assert len(train) + len(aside) == 100 and len(aside) > 0
    assert not {row[0] for row in train.rows} & {row[0] for row in aside.rows}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair_column": "b"}, "--pair-column needs --text-column"),
        ({"text_column": "a", "negative_column": "c"}, "--negative-column needs"),
        (
            dict.fromkeys(
                ("cosine_weight", "mse_weight", "similarity_weight", "label_weight"), 0.0
            ),
            "all weights are 0",
        ),
        ({"cosine_weight": -1.0}, "--cosine-weight"),
        ({"metric": "accuracy"}, "Choose from spearman, pearson, average_precision, ndcg@10"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        of(kind="embeddings", **options)


def test_texts_alone_need_a_teachers_weight(tmp_path):
    none = {"cosine_weight": 0.0, "mse_weight": 0.0, "similarity_weight": 0.0}
    with pytest.raises(ValueError, match="texts alone are learnt from a teacher"):
        read(tmp_path, {"text": "a"}, **none)
    assert len(read(tmp_path, ROW, **none)) == 1


def test_metrics_follow_what_is_there(tmp_path):
    def metrics(row, *others, **options):
        task = of(kind="embeddings", train=written(tmp_path, row, *others), **options)
        return task.measured(task.load_training())

    assert metrics({"text": "a"}) == ("neighbors@10", "cosine")
    scores = [PAIR | {"score": score} for score in (0, 1, 2)]
    assert metrics(*scores) == ("spearman", "pearson")
    assert metrics(*scores[:2]) == ("spearman", "pearson", "average_precision")
    assert metrics(*scores, metric="pearson") == ("pearson", "spearman")
    assert metrics(ROW)[0] == "ndcg@10"
    with pytest.raises(ValueError, match=r"--metric spearman: .* can be measured by ndcg@10"):
        metrics(ROW, metric="spearman")
