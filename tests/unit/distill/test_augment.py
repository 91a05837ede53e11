"""The procedure of augmentation, with candidates from a table."""

from __future__ import annotations

import random

import pytest

from sentei.distill.augment import augment, replaceable, rewrite

TABLE = {"film": ["book", "meal"], "good": ["fine", "great", "nice"], "paris": ["london"]}


def table(text, words):
    return [TABLE.get(word.text.lower(), []) for word in words]


def test_function_words_numbers_and_punctuation_stay():
    text = "The film, seen in 2019 (at £10), wasn't R2D2-like: très_bon Straße!"
    words = replaceable(text)
    assert [word.text for word in words] == ["film", "seen", "like", "très", "bon", "Straße"]
    assert all(text[word.start : word.end] == word.text for word in words)


def test_markup_and_special_tokens_stay():
    text = (
        "good[SEP]film <br />Good</p> <mask> <|endoftext|> &quot;good&quot; @user www.good.com "
        "http://good.com/film?a=good me@good.com 1 < film; @ [good]"
    )
    words = replaceable(text)
    assert [w.text for w in words] == ["good", "film", "Good", "good", "film", "good"]
    assert all(text[word.start : word.end] == word.text for word in words)


def test_all_or_nothing_is_replaced():
    text = "A GOOD film in Paris: good!"
    words = replaceable(text)
    rewritten = rewrite(text, words, table(text, words), replace=1.0, rng=random.Random(0))
    assert rewritten.split()[1].isupper() and rewritten.split()[4] == "London:"
    assert rewritten.startswith("A ") and rewritten.endswith("!")
    assert not {"good", "film", "paris"} & {word.text.lower() for word in replaceable(rewritten)}
    assert rewrite(text, words, table(text, words), replace=0.0, rng=random.Random(0)) == text


def test_the_fraction_replaced_is_the_one_set():
    text = " ".join(["good"] * 4000)
    words = replaceable(text)
    rewritten = rewrite(text, words, table(text, words), replace=0.4, rng=random.Random(1)).split()
    kept = rewritten.count("good")
    assert len(rewritten) == 4000 and abs(kept / 4000 - 0.6) < 0.03
    for word in TABLE["good"]:
        assert abs(rewritten.count(word) / (4000 - kept) - 1 / 3) < 0.05


ROWS = [("the film was good", "see Paris"), ("a good meal", "no word here known")]


def test_rows_keep_their_original_first_and_no_copy_twice():
    versions = list(augment(ROWS, table, copies=1000, replace=0.4, seed=0))
    for row, copies in zip(ROWS, versions, strict=True):
        assert copies[0] == row and len(set(copies)) == len(copies)
    assert len(versions[0]) == 3 * 4 * 2  # every choice of film, good and Paris is met
    assert len(versions[1]) == 4 and {second for _, second in versions[1]} == {ROWS[1][1]}
    again = list(augment([*ROWS, ROWS[0]], table, copies=1000, replace=0.4, seed=0))
    assert again[:2] == versions and again[2] == [
        ROWS[0]
    ]  # an original stays, its copies were there


def test_no_copy_is_a_later_original():
    rows = [("a good film",), ("a nice film",), ("a great book",)]
    versions = list(augment(rows, table, copies=200, replace=0.5, seed=0))
    for row, copies in zip(rows, versions, strict=True):
        assert {*rows} & {*copies} == {row}


def test_what_is_drawn_depends_on_the_seed_and_the_row():
    def draw(rows, seed):
        return list(augment(rows, table, copies=3, replace=0.4, seed=seed))

    assert draw(ROWS, 0) == draw(ROWS, 0)
    assert draw(ROWS, 0) != draw(ROWS, 1)
    assert draw(ROWS[::-1], 0) == draw(ROWS, 0)[::-1]


@pytest.mark.parametrize("text", ["", "the and of", "42 !?"])
def test_texts_without_words_are_left_alone(text):
    def never(text, words):
        raise AssertionError("asked for nothing")

    assert list(augment([(text,)], never, copies=5, replace=1.0, seed=0)) == [[(text,)]]
