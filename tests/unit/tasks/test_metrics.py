import math
import warnings

import numpy as np
import pytest

from sentei.tasks import metrics


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_two_classes_by_hand():
    labels = [1, 1, 1, 0, 0, 0, 0, 1]
    predictions = [1, 1, 0, 0, 0, 0, 1, 1]  # tp 3, fn 1, fp 1, tn 3
    values = metrics.compute(("accuracy", "f1", "matthews"), predictions, labels)
    assert values == pytest.approx({"accuracy": 0.75, "f1": 0.75, "matthews": (9 - 1) / 16})


def test_f1_of_two_classes_is_that_of_class_one():
    # tp 1, fp 0, fn 1: F1 = 2 / 3; that of class 0 would be 2 · 2 / 5
    assert metrics.compute(["f1"], [1, 0, 0, 0], [1, 1, 0, 0])["f1"] == pytest.approx(2 / 3)


def test_f1_of_several_classes_is_the_mean_over_classes():
    labels = [0, 0, 1, 1, 2, 2]
    predictions = [0, 1, 1, 1, 2, 0]  # F1: 1/2, 4/5, 2/3
    expected = (1 / 2 + 4 / 5 + 2 / 3) / 3
    assert metrics.compute(["f1"], predictions, labels)["f1"] == pytest.approx(expected)


def test_f1_of_three_classes_of_which_two_occur_is_no_f1_of_class_one():
    logits = [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [2.0, 0.0, 0.0]]
    expected = (4 / 5 + 2 / 3) / 2  # class 0: tp 2, fn 1
    assert metrics.compute(["f1"], logits, [0, 1, 0, 0])["f1"] == pytest.approx(expected)


def test_correlations_by_hand():
    labels = [1.0, 2.0, 3.0, 4.0]
    predictions = [1.0, 4.0, 3.0, 16.0]
    # deviations (-5, -2, -3, 10) and (-1.5, -0.5, 0.5, 1.5): 22 / sqrt(138 · 5)
    values = metrics.compute(("pearson", "spearman"), predictions, labels)
    assert values["pearson"] == pytest.approx(22 / math.sqrt(138 * 5))
    assert values["spearman"] == pytest.approx(0.8)  # ranks 1 3 2 4: 1 - 6 · 2 / 60


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize(
    ("predictions", "labels"), [([1, 1, 1], [0, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([1], [0])]
)
def test_undefined_correlations_are_zero(name, predictions, labels):
    assert metrics.compute([name], predictions, labels) == {name: 0.0}


def test_no_true_positive_is_zero():
    assert metrics.compute(["f1"], [0, 0], [0, 0]) == {"f1": 0.0}


def test_model_outputs():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 5.0]], dtype=np.float32)
    assert metrics.compute(["accuracy"], logits, [0, 2]) == {"accuracy": 1.0}
    assert metrics.compute(["pearson"], [[1.0], [2.0]], [10, 20]) == pytest.approx({"pearson": 1})


def test_errors():
    with pytest.raises(ValueError, match=r"no metric 'acuracy'; did you mean 'accuracy'\?"):
        metrics.compute(["acuracy"], [1], [1])
    with pytest.raises(ValueError, match=r"shape \(2,\) and labels of shape \(1,\)"):
        metrics.compute(["accuracy"], [1, 0], [1])
    with pytest.raises(ValueError, match="at least one label"):
        metrics.compute(["accuracy"], [], [])
    with pytest.raises(ValueError, match="NaN or infinite for 1 of 2 examples: training has div"):
        metrics.compute(["accuracy"], [[0.0, math.nan], [0.0, 1.0]], [1, 1])
