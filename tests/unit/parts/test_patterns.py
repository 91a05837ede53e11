"""Units laid over sites: what they own, how their scores are pooled, what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn

import sentei
from sentei.families import Slice, Structure
from sentei.methods import find
from sentei.parts.patterns import NM, Block, Head, Hybrid, Pattern, Row, Unstructured, protect_
from sentei.parts.site import Site
from sentei.testing import Training

SPELL = TypeAdapter(Pattern)


def sites(*shapes, roles=()):
    roles = roles or ["x"] * len(shapes)
    return [
        Site(f"s{i}.weight", nn.Parameter(torch.zeros(shape)), i, role)
        for i, (shape, role) in enumerate(zip(shapes, roles, strict=True))
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unstructured", Unstructured()),
        ("2:4", NM()),
        ("1:8", NM(keep=1, of=8)),
        ("16x32", Block(rows=16, columns=32)),
        ("row", Row()),
        ("head+4x1", Hybrid(parts=(Head(), Block(rows=4, columns=1)))),
        ({"kind": "row", "reduce": "max"}, Row(reduce="max")),
    ],
)
def test_spellings(text, expected):
    assert SPELL.validate_python(text) == expected
    recipe = sentei.magnitude(0.5, pattern=expected)
    assert sentei.load(sentei.dump(recipe)) == recipe
    if isinstance(text, str):
        assert sentei.override(sentei.magnitude(0.5), [f"pattern={text!r}"]).pattern == expected


@pytest.mark.parametrize("text", ["heads", "2:x", "head+blok", ""])
def test_unknown_spellings(text):
    with pytest.raises(ValueError, match="no kind of pattern"):
        sentei.override(sentei.magnitude(0.5), [f"pattern={text!r}"])


@pytest.mark.parametrize(
    ("pattern", "unit"),
    [
        ("row", lambda i, j: i),
        ("column", lambda i, j: j),
        ("2x3", lambda i, j: (i // 2) * 4 + j // 3),
    ],
)
@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min"])
def test_pooled_scores_by_hand(pattern, unit, reduce):
    scores = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    [site] = sites((6, 12))
    (units,) = SPELL.validate_python(pattern).arrange([site], ())
    members = {}
    for i in range(6):
        for j in range(12):
            members.setdefault(unit(i, j), []).append(float(scores[i, j]))
    fold = {"mean": lambda v: sum(v) / len(v), "sum": sum, "max": max, "min": min}[reduce]
    expected = torch.tensor([fold(members[u]) for u in sorted(members)])
    assert units.count == len(members) and units.weights == 72 // len(members)
    torch.testing.assert_close(units.pool({site: scores}, reduce), expected)
    mask = torch.zeros(6, 12, dtype=torch.bool)
    keep = torch.arange(units.count) % 3 == 0
    units.tilings[0].write_(mask, keep)
    assert all(bool(mask[i, j]) == bool(keep[unit(i, j)]) for i in range(6) for j in range(12))


def test_a_head_is_its_rows_and_columns():
    """Two heads of width 2 over q, k, v (4 x 6) and o (6 x 4): 3 x 2 rows of 6, 2 columns of 6."""
    shapes = sites((4, 6), (4, 6), (4, 6), (6, 4))
    structure = Structure(
        unit="head",
        name="layer.0",
        layer=0,
        units=2,
        weights=tuple(Slice(f"s{i}.weight", 1 if i == 3 else 0, 0, 2) for i in range(4)),
        biases=(),
    )
    (units,) = Head().arrange(shapes, (structure,))
    assert (units.count, units.weights, units.sites) == (2, 48, tuple(shapes))
    ones = {site: torch.ones_like(site.parameter) for site in shapes}
    ones[shapes[3]][:, 2:] = 3
    assert units.pool(ones, "sum").tolist() == [48, 36 + 36]
    assert units.pool(ones, "mean").tolist() == [1, 1.5]
    assert units.pool(ones, "max").tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"s3\.weight goes with s0\.weight .* include both"):
        Head().arrange(shapes[:3], (structure,))


@given(st.integers(1, 6), st.integers(2, 6), st.integers(0, 2**31), st.sampled_from([1, 3, 100]))
@settings(max_examples=60, deadline=None)
def test_n_m_protects_the_highest_of_every_group(keep, of, seed, values):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(values, (of * 7,), generator=generator).float()
    before = scores.clone().view(-1, of)
    protect_(scores, min(keep, of), of)
    for old, new in zip(before, scores.view(-1, of), strict=True):
        order = sorted(range(of), key=lambda i: (-float(old[i]), i))
        expected = [torch.inf if i in order[:keep] else float(old[i]) for i in range(of)]
        assert new.tolist() == expected


@pytest.mark.parametrize("method", ["magnitude", "platon", "movement", "soft_movement"])
@pytest.mark.parametrize("n_m", [(2, 4), (1, 8)])
def test_every_group_of_m_keeps_n(method, n_m):
    keep, of = n_m
    recipe = find(method).build(1 - keep / of, pattern=f"{keep}:{of}")
    run = Training(recipe)
    for step in range(40):
        run.step()
        for mask in run.pruner.masks.values():
            groups = mask.view(-1, of).sum(1)
            assert int(groups.min()) >= keep, f"step {step}"
    run.finish()
    for block in run.model.blocks:
        assert bool(((block.weight.view(-1, of) != 0).sum(1) == keep).all())


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("2:5", r"pattern 2:5: blocks\.0\.weight has 16 inputs, which 5 does not divide"),
        ("3x4", r"pattern 3x4: blocks\.0\.weight is 16 x 16, which such blocks do not divide"),
        ("head", "heads and neurons are known by model family, and a model without one"),
        (
            {"kind": "row", "roles": ["0", "query"]},
            "row: no site of the scope has the role 'query'",
        ),
        (
            {"kind": "hybrid", "parts": [{"kind": "row", "roles": ["0"]}] * 2},
            "row: no site with the roles 0; left for it is 1",
        ),
        (
            {"kind": "hybrid", "parts": [{"kind": "row", "roles": ["0", "O1"]}, "column"]},
            r"roles there are 0, 1, 2.*; did you mean '1'\?",
        ),
        ("row+column", "pattern column: no site; left for it is nothing"),
    ],
)
def test_what_does_not_fit_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        Training(sentei.magnitude(0.6, pattern=pattern))


def test_sparsities_that_n_m_cannot_have():
    with pytest.raises(ValueError, match="is a sparsity of"):
        Training(sentei.magnitude(0.6, pattern="2:4"))
    with pytest.raises(ValueError, match=r"of 0\.666666666667 and .* not 0\.666667$"):
        NM(keep=1, of=3).check(0.666667)
    NM(keep=1, of=3).check(0.666666666667)
    with pytest.raises(ValueError, match="pattern 4:4 prunes nothing"):
        Training(sentei.magnitude(0.6, pattern="4:4"))
    with pytest.raises(ValueError, match="pattern 2:4 fixes how much of every matrix is kept"):
        sentei.leap(0.5, pattern="2:4")
    Training(sentei.magnitude(0.0, pattern="2:4"))
