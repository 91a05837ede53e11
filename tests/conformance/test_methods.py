"""Every method keeps every promise; none is excused."""

import pytest

import sentei
from sentei.methods import known
from sentei.methods.method import Method
from sentei.methods.mgpp import EqualSteps
from sentei.testing import CHECKS


def _in_equal_steps(sparsity: float = 0.7) -> sentei.Recipe:
    schedule = EqualSteps(sparsity=sparsity, rises=6, warmup=0.2, cooldown=0.2)
    return sentei.mgpp(examples=1000).model_copy(update={"schedule": schedule})


SECOND_CODING = Method(
    name="mgpp", build=_in_equal_steps, summary="MGPP's other schedule", paper="arXiv 2411.00969"
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_method(method, check):
    check(method)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_method_on_a_schedule_of_equal_steps(check):
    check(SECOND_CODING)
