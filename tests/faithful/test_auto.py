"""auto is PLATON but for what its card names."""

from __future__ import annotations

import sentei


def test_it_is_platon_without_dropout():
    as_platon = sentei.override(sentei.auto(0.9), ["method=platon", "dropout=1"])
    assert as_platon == sentei.platon(0.9)
    assert sentei.auto(0.9).dropout == 0
