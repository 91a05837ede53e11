"""Names of classes as files write them."""

import warnings

import pytest

from sentei.data.labels import as_name, in_order, read_names, renumber, warn_of_likes
from sentei.messages import SenteiWarning


def fail(row, reason):
    raise ValueError(f"row {row}: {reason}")


def names(*cells):
    return read_names(cells, fail, "Take whole numbers.")


@pytest.mark.parametrize(
    "cells",
    [
        ("0", "1"),
        ("0.0", "1.0"),
        (0.0, 1.0),
        ("0", "1.0"),
        (0, "1.0"),
        (" 0.0 ", "1.0\u00a0"),
        ("0.00", "1e0"),
    ],
)
def test_whole_numbers_however_they_are_written(cells):
    assert names(*cells) == ["0", "1"]


def test_numbers_among_names_stay_what_they_are():
    assert names("1.0", "beta", "2.0") == ["1.0", "beta", "2.0"]
    assert names("007", "01") == ["007", "01"]
    assert names("-1.0", "10.0") == ["-1", "10"]


@pytest.mark.parametrize("cells", [("0.5", "1.0"), (0.5, 1), ("1", "inf"), ("1e300", "2")])
def test_numbers_that_are_no_classes(cells):
    with pytest.raises(ValueError, match=r"row \d: the label .* decimal number. Take whole numb"):
        names(*cells)


@pytest.mark.parametrize(
    "absent", ["nan", "NaN", "<NA>", " nan ", None, float("nan"), "", "\u200b"]
)
@pytest.mark.parametrize("others", [("0.0", "1.0"), ("pos", "neg")])
def test_no_label(absent, others):
    with pytest.raises(ValueError, match=r"row 2: .*add it or take the row out"):
        names(*others, absent)


@pytest.mark.parametrize("name", ["Nan", "NA", "None", "null", "nano"])
def test_names_that_are_some(name):
    assert names(name, "x") == [name, "x"]


@pytest.mark.parametrize("cell", [[1], {"a": 1}, 10**400, b"x"])
def test_what_is_no_name(cell):
    with pytest.raises(ValueError, match="row 0: the label is ") as caught:
        names(cell)
    assert len(str(caught.value)) < 200


CAFE = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "forms",
    [
        CAFE,
        (
            "New York",
            "New  York",
            " New\u00a0York ",
            "New\tYork",
            "New\u3000York",
            "New York\u200b",
        ),
        ("pos", "pos ", "\ufeffpos", "pos\r"),
    ],
)
def test_blanks_and_accents_make_one_name(forms):
    assert len({as_name(form) for form in forms}) == 1
    assert len(set(names(*forms))) == 1


@pytest.mark.parametrize(
    "pair",
    [("Pos", "pos"), ("ABC", "\uff21\uff22\uff23"), ("Stra\u00dfe", "STRASSE"), ("1.0", "1")],
)
def test_names_that_read_alike_are_said(pair):
    with pytest.warns(SenteiWarning, match=r"^a\.csv: the labels .* are 2 classes"):
        assert in_order([*pair, "other"], "a.csv") == tuple(sorted([*pair, "other"]))


def test_other_names_are_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_order(["a", "b", "aa"], "a.csv")
        in_order(["1", "01", "10"], "a.csv")
        warn_of_likes(["no", "not", "none"], "a.csv")


def test_a_model_knows_its_classes_in_any_form():
    model = ("caf\u00e9", "New York", "beta", "1.0")
    seen = {"CAFE\u0301": 1, "new\u00a0york": 1, "1": 1, "beta": 1}
    assert renumber(seen, model, "b.csv") == {
        "CAFE\u0301": 0,
        "new\u00a0york": 1,
        "1": 3,
        "beta": 2,
    }
    assert renumber({"a": 1, "A": 1}, ("A", "a"), "b.csv") == {"a": 1, "A": 0}
    with pytest.raises(ValueError, match=r"b\.csv: label 'Aa' \(1 row\)"):
        renumber({"Aa": 1}, ("AA", "aa"), "b.csv")


def test_a_long_name_is_not_printed_whole():
    with pytest.raises(ValueError) as caught:
        renumber({"x" * 100_000: 1, "\x1b[31m": 1}, ("y" * 100_000,), "b.csv")
    assert len(str(caught.value)) < 400 and "\x1b" not in str(caught.value)
