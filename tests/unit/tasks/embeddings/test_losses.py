import math

import pytest
import torch

from sentei.tasks.embeddings.losses import (
    answer_loss,
    cosine_loss,
    score_loss,
    similarity_loss,
    squared_loss,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nothing_is_left_to_learn_from_itself():
    one = random(6, 8)
    for loss in (cosine_loss, squared_loss, similarity_loss):
        assert loss(one, one.clone()) == pytest.approx(0.0, abs=1e-6)


def test_each_is_a_share_of_what_there_is():
    teacher = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert squared_loss(torch.zeros(3, 2), teacher) == pytest.approx(1.0)
    assert cosine_loss(-teacher, teacher) == pytest.approx(2.0)
    assert squared_loss(3 * teacher, 3 * teacher + 0.3) == pytest.approx(
        float(squared_loss(teacher, teacher + 0.1))
    )
    # cosines 0, 1/sqrt 2, 1/sqrt 2 against 1, 1, 1
    root = 1 / math.sqrt(2)
    mean = 2 * root / 3
    spread = mean**2 + 2 * (root - mean) ** 2
    expected = (1 + 2 * (1 - root) ** 2) / spread
    assert similarity_loss(torch.ones(3, 2), teacher) == pytest.approx(expected, rel=1e-5)


def test_similarities_compare_any_widths():
    student = random(5, 4)
    turned = torch.cat([student, torch.zeros(5, 3)], 1)[:, torch.randperm(7)]
    assert similarity_loss(student, turned) == pytest.approx(0.0, abs=1e-6)
    assert similarity_loss(student[:2], turned[:2]) == 0


def test_scores_count_by_their_order():
    first = torch.tensor([[1.0, 0.0]] * 3)
    second = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    right, same = (torch.tensor(scores) for scores in ([5.0, 4.0, 0.0], [1.0, 1.0, 1.0]))
    assert score_loss(first, second, same) == 0
    assert score_loss(first, second, right) < 0.01
    assert score_loss(first, second, right / 5) == score_loss(first, second, right)
    cosines = 20 * torch.tensor([1.0, 1 / math.sqrt(2), 0.0])
    wrong = [cosines[0] - cosines[1], cosines[0] - cosines[2], cosines[1] - cosines[2]]
    expected = math.log(1 + sum(math.exp(one) for one in wrong))
    assert score_loss(first, second, -right) == pytest.approx(expected, rel=1e-5)


def test_answers_are_told_from_all_others():
    queries = torch.eye(3)
    numbers = torch.tensor([3, 4, 5])
    expected = -math.log(math.exp(20) / (math.exp(20) + 2))
    assert answer_loss(queries, torch.eye(3), numbers) == pytest.approx(expected, abs=1e-6)
    wrong = torch.eye(3)[[1, 2, 0]]
    assert answer_loss(queries, wrong, numbers) == pytest.approx(
        20 + math.log(1 + 2 * math.exp(-20))
    )
    # a negative is one more to be told from, and the same passage twice is none
    more = torch.cat([torch.eye(3), torch.eye(3)])
    numbers = torch.tensor([3, 4, 5, 6, 7, 8])
    assert answer_loss(queries, more, numbers) == pytest.approx(math.log(2), rel=1e-3)
    numbers = torch.tensor([3, 4, 5, 3, 4, 5])
    assert answer_loss(queries, more, numbers) < 1e-3


def test_gradients_are_finite():
    student = random(8, 4).requires_grad_()
    score_loss(student[:4], student[4:], torch.tensor([1.0, 1.0, 0.0, 2.0])).backward()
    answer_loss(student[:4], student[4:], torch.tensor([1, 1, 2, 3])).backward()
    similarity_loss(student, random(8, 4, seed=1)).backward()
    assert torch.isfinite(student.grad).all()
