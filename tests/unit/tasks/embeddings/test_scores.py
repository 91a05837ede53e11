import math

import numpy as np
import pytest

from sentei.tasks.embeddings.scores import agreement, answer_scores, pair_scores


def test_pairs_by_cosine():
    angles = np.radians([0.0, 10.0, 40.0, 90.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * [
        [1],
        [5],
        [2],
        [1],
    ]
    rows = np.array([[0, 1], [0, 2], [0, 3]])
    found = pair_scores(vectors, rows, [5.0, 3.0, 1.0], binary=False)
    assert found["spearman"] == pytest.approx(1.0) and set(found) == {"spearman", "pearson"}
    cosines = np.cos(angles[1:])
    assert found["pearson"] == pytest.approx(np.corrcoef(cosines, [5, 3, 1])[0, 1])
    yes_or_no = pair_scores(vectors, rows, [0.0, 1.0, 0.0], binary=True)
    assert yes_or_no["average_precision"] == pytest.approx(0.5)  # found second


def test_what_queries_find():
    """Queries 0 and 1 among passages 2, 3, 4, in the order that their angles give."""
    angles = np.radians([0.0, 90.0, 5.0, 20.0, 60.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    rows = np.array([[0, 3], [0, 4], [1, 4], [1, 4]])
    found = answer_scores(vectors, rows[[0, 1, 2, 3]])
    # passage 2 answers neither: it is there only where a row names it
    assert found["recall@1"] == pytest.approx((0.5 + 1) / 2)
    negative = np.array([[0, 3, 2], [0, 4, 2], [1, 4, 2]])
    found = answer_scores(vectors, negative)
    assert found["recall@1"] == pytest.approx((0 + 1) / 2)
    assert found["recall@5"] == found["recall@10"] == 1
    assert found["mrr@10"] == pytest.approx((1 / 2 + 1) / 2)
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert found["ndcg@10"] == pytest.approx(((second + third) / (1 + second) + 1) / 2)


def test_a_query_does_not_find_itself():
    vectors = np.eye(3, dtype=np.float32)
    vectors[1, 0], vectors[2, 1] = 0.5, 0.5
    found = answer_scores(vectors, np.array([[0, 1], [2, 0]]))
    assert found["recall@1"] == pytest.approx(0.5)  # 0 finds 1, and not itself; 2 finds 1


def test_many_queries_in_pieces():
    rng = np.random.default_rng(0)
    passages = rng.standard_normal((700, 16)).astype(np.float32)
    vectors = np.concatenate([passages, passages + 0.01])
    rows = np.stack([np.arange(700), np.arange(700, 1400)], 1)
    assert answer_scores(vectors, rows)["recall@1"] == 1
    assert agreement(vectors, 3 * vectors) == {
        "cosine": pytest.approx(1.0),
        "neighbors@10": 1.0,
    }


def test_agreement():
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((40, 8)).astype(np.float32) for _ in range(2))
    found = agreement(one, other)
    assert abs(found["cosine"]) < 0.3 and 0.1 < found["neighbors@10"] < 0.5  # by chance 10 / 39
    wider = np.concatenate([one, np.zeros((40, 2), np.float32)], 1)
    assert agreement(one, wider) == {"neighbors@10": 1.0}
    assert agreement(one[:1], one[:1])["neighbors@10"] == 1
    few = agreement(one[:4], other[:4])
    assert few["neighbors@10"] == 1  # all three others are the nearest to both
