"""The list of methods, which is read without importing them."""

from __future__ import annotations

import pytest

from sentei import methods


def test_cards_say_what_the_methods_say():
    assert methods.cards() == [method.card for method in methods.known()]


def test_some_cards():
    assert [card.name for card in methods.cards("m*")] == [m.name for m in methods.known("m*")]
    assert methods.cards("nothing*") == []


def test_methods_of_other_packages_have_cards(monkeypatch):
    foreign = methods.Method("zeros", methods.find("magnitude").build, "all of them", "nobody")
    monkeypatch.setattr(methods, "_third_party", lambda: [foreign])
    assert methods.cards()[-1] == foreign.card == methods.Card("zeros", "all of them", "nobody", 1)


def test_a_file_that_declares_nothing(tmp_path):
    (tmp_path / "method.py").write_text('"""Nothing."""\n')
    with pytest.raises(AssertionError, match=r"method\.py: a method's file declares METHOD"):
        methods._read_card(tmp_path / "method.py")
