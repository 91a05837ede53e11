"""Facts as plain data: what they add up to, and that they are only what they say."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from sentei.records import Histogram, SiteRecord

SITE = {"name": "w", "layer": None, "role": "query", "shape": (2, 3), "weights": 6, "pruned": 2}


def test_a_record_is_frozen_and_knows_its_keys():
    record = SiteRecord(**SITE)
    with pytest.raises(ValidationError, match="frozen"):
        record.pruned = 3
    with pytest.raises(ValidationError, match="prunned"):
        SiteRecord(**SITE, prunned=3)
    assert SiteRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("number", [-1, 2**63, 10**400])
@pytest.mark.parametrize("field", ["weights", "layer", "shape"])
def test_whole_numbers_are_counts(field, number):
    value = (2, number) if field == "shape" else number
    with pytest.raises(ValidationError, match="should be a count"):
        SiteRecord(**{**SITE, field: value})


def test_numbers_without_an_end_survive_json():
    histogram = Histogram(edges=(-math.inf, math.inf), kept=(1,), pruned=(0,))
    assert Histogram.model_validate_json(histogram.model_dump_json()) == histogram
