"""Every method keeps every promise; none is excused."""

import pytest

from sentei.methods import known
from sentei.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_method(method, check):
    check(method)
