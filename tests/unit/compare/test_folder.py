"""The folder that workers share: a plan that may add, and not change."""

from __future__ import annotations

import pytest

from helpers.plans import small
from sentei.compare.folder import check_still_planned
from sentei.compare.plan import load
from sentei.compare.runs import Runs


def test_a_worker_stops_where_the_plan_now_asks_for_another_run(tmp_path):
    old = Runs(load(small()), tmp_path)
    taught, other = (f"runs/one/{name}/0.8/seed1" for name in ("taught", "magnitude"))
    changed = small(seeds=[1])
    changed["recipes"]["taught"]["settings"] = {"learning_rate": 2e-4}
    (tmp_path / "plan.yaml").write_text(load(changed).dump())
    check_still_planned(old, old[other])
    with pytest.raises(
        ValueError, match=r"taught/0.8/seed1 with learning_rate=0.0002 where it was"
    ):
        check_still_planned(old, old[taught])
    with pytest.raises(ValueError, match=r"leaves runs/one/magnitude/0.8/seed2 out"):
        check_still_planned(old, old["runs/one/magnitude/0.8/seed2"])
