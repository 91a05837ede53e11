"""Sentences for people: what was meant, lists that end, mistakes with their place and reason."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sentei.messages import counted, did_you_mean, explain, listing, nearest, printable, short


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("platn", "platon"),
        ("PLATON", "platon"),
        ("qnli", "QNLI"),
        ("xyzzy", None),
        ("", None),
    ],
)
def test_the_nearest_word_is_as_it_is_written(word, expected):
    assert nearest(word, ["movement", "platon", "QNLI"]) == expected


def test_how_near_is_near_enough():
    assert nearest("pla", ["platon"]) == "platon" and nearest("pla", ["platon"], cutoff=0.9) is None
    assert nearest("platon", []) is None


def test_did_you_mean():
    assert did_you_mean("platn", ["movement", "platon"]) == "; did you mean 'platon'?"
    assert did_you_mean("xyzzy", ["movement", "platon"]) == ""


def test_a_list_says_how_much_of_it_is_not_shown():
    assert listing([]) == ""
    assert listing(str(i) for i in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listing("abcde", most=3) == "a, b, c, ... (2 more)"
    assert listing("abc", most=3) == "a, b, c"


def test_a_long_value_is_cut_and_closed():
    assert short("x" * 38) == repr("x" * 38) and len(short("x" * 38)) == 40
    assert short("x" * 39) == "'" + "x" * 35 + "...'" and len(short("x" * 39)) == 40
    assert short([1, 2], width=6) == "[1, 2]"
    assert short("abcdefghij", width=9) == "'abcd...'"


def test_a_number_with_its_noun():
    assert [counted(n, "row") for n in (0, 1, 2, 12345)] == [
        *("0 rows", "1 row", "2 rows", "12,345 rows"),
    ]


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rate: float = Field(0.5, gt=0)
    flag: bool = True


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()

    @model_validator(mode="after")
    def _refuse(self):
        if self.name == "bad":
            raise ValueError("this name is taken")
        return self


def mistake(known=None, **values) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return explain(caught.value, known) if known else explain(caught.value)


def test_a_mistake_has_a_path_a_value_and_a_reason():
    sentence = "inner.rate=-1: should be greater than 0"
    assert mistake(name="x", inner={"rate": -1}) == sentence
    assert mistake(name="x", many=[{}, {"rate": -1}]) == sentence.replace("inner", "many.1")
    assert mistake(name=3) == "name=3: should be a valid string"


def test_every_mistake_is_told():
    assert mistake(inner={"rate": -1, "flag": "perhaps"}) == (
        "name is missing; inner.rate=-1: should be greater than 0; "
        "inner.flag='perhaps': should be a valid boolean, unable to interpret input"
    )


def test_a_mistake_of_the_whole_has_no_path():
    assert mistake(name="bad") == "this name is taken"


def test_an_unknown_setting_may_have_been_meant_for_a_known_one():
    paths = []

    def known(path):
        paths.append(path)
        return ["rate", "flag"]

    wrong = {"name": "x", "inner": {"rat": 1}}
    assert mistake(known, **wrong) == "unknown setting inner.rat; did you mean 'rate'?"
    assert paths == [("inner", "rat")]
    assert mistake(**wrong) == "unknown setting inner.rat"


def bomb(levels: int) -> list[object]:
    inside: object = "x"
    for _ in range(levels):
        inside = [inside] * 10
    return [inside]


@pytest.mark.parametrize(
    "value",
    [
        bomb(12),
        {"a": bomb(12)},
        "x" * 10**7,
        [["x" * 10**6] * 1000],
        10**100_000,
        {str(n): n for n in range(10**5)},
        b"x" * 10**6,
    ],
    ids=["bomb", "bomb inside", "text", "texts", "number", "mapping", "bytes"],
)
def test_no_more_of_a_value_is_written_than_is_shown(value):
    assert len(short(value)) <= 40 and len(short(value, 200)) <= 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, naïve 日本\n\tline", "plain text, naïve 日本\n\tline"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x00\x7f\x9b31m", r"a\rb\x00\x7f\x9b31m"),
        ("abc\u202etxt.exe\u2066", r"abc\u202etxt.exe\u2066"),
        ("half \ud800 and \udcff", r"half \ud800 and \udcff"),
        ("\u2028\u2029\ufeff", r"\u2028\u2029\ufeff"),
    ],
)
def test_control_characters_are_shown(text, shown):
    assert printable(text) == shown
    printable(text).encode()


def test_many_mistakes_end():
    class Nothing(BaseModel):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(ValidationError) as caught:
        Nothing.model_validate({"key" * 1000 + str(n): n for n in range(500)})
    message = explain(caught.value)
    assert "and 492 more mistakes" in message and len(message) < 2000
