"""The metrics of the text tasks, by name, computed with scikit-learn and SciPy.

============  =======  =========================================================================
accuracy      [0, 1]   fraction of examples that are right
f1            [0, 1]   two classes: F1 of class 1; more: unweighted mean of the F1 of each class
                       that occurs
matthews      [-1, 1]  Matthews correlation; 0 where it is undefined, as is its convention
pearson       [-1, 1]  linear correlation of predicted and true values
spearman      [-1, 1]  the same of their ranks, ties at their mean rank
============  =======  =========================================================================

Pearson and Spearman divide by the spread of both sides and are undefined when one is constant.
They are reported as 0.0 then: a model that answers one value for every example (a usual state
just after too much pruning) explains nothing, and a NaN would make every comparison of
checkpoints false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentei.messages import did_you_mean

_Metric = Callable[[NDArray[np.generic], NDArray[np.generic]], float]


def _accuracy(predictions: NDArray[np.generic], labels: NDArray[np.generic]) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def _f1(predictions: NDArray[np.generic], labels: NDArray[np.generic], classes: int = 0) -> float:
    """``classes`` is how many there are; of several some may not occur."""
    from sklearn.metrics import f1_score

    binary = classes <= 2 and max(predictions.max(), labels.max()) <= 1
    average = "binary" if binary else "macro"
    return float(f1_score(labels, predictions, average=average, zero_division=0))


def _matthews(predictions: NDArray[np.generic], labels: NDArray[np.generic]) -> float:
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn warns where a single value fills both sides; its answer there is 0, as it should
    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def _pearson(predictions: NDArray[np.generic], labels: NDArray[np.generic]) -> float:
    from scipy import stats  # type: ignore[import-untyped]

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(stats.pearsonr(predictions, labels).statistic)


def _spearman(predictions: NDArray[np.generic], labels: NDArray[np.generic]) -> float:
    from scipy import stats

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(stats.spearmanr(predictions, labels).statistic)


def _constant(values: NDArray[np.generic]) -> bool:
    return bool((values == values[0]).all())


def check_finite(outputs: NDArray[np.generic]) -> None:
    """Refuse what a diverged model puts out.

    Args:
        outputs: Numbers, one row an example.

    Raises:
        ValueError: Some are NaN or infinite.
    """
    if bad := int((~np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)).sum()):
        raise ValueError(
            f"the model's output is NaN or infinite for {bad} of {len(outputs)} examples: "
            f"training has diverged; try a lower learning rate."
        )


METRICS: Final[dict[str, _Metric]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
"""Every metric by name: a function of (predictions, labels), higher is better."""


def compute(names: Iterable[str], predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The named metrics, in the order of ``names``.

    Args:
        names: Names of :data:`METRICS`.
        predictions: Class indices or values, one an example; or what the model put out: logits
            (examples × classes, the largest wins) or values (examples × 1).
        labels: True class indices or values, one an example.

    Raises:
        ValueError: If a name is unknown, there is no example, the lengths differ, or a prediction
            is not finite.
    """
    names = tuple(names)
    for name in names:
        if name not in METRICS:
            raise ValueError(
                f"there is no metric {name!r}{did_you_mean(name, METRICS) or '.'} "
                f"The metrics are {', '.join(METRICS)}."
            )
    truth = np.asarray(labels)
    outputs = np.asarray(predictions)
    if outputs.shape[:1] != truth.shape or truth.size == 0:
        raise ValueError(
            f"metrics need one prediction for each of at least one label: "
            f"got predictions of shape {outputs.shape} and labels of shape {truth.shape}."
        )
    check_finite(outputs)
    metrics = METRICS
    if outputs.ndim == 2:
        metrics = METRICS | {"f1": partial(_f1, classes=outputs.shape[1])}
        outputs = outputs[:, 0] if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return {name: metrics[name](outputs, truth) for name in names}
