"""JSON: values keep their kind, and what is broken is named with its line."""

import json

from helpers.data import cells, refused


def test_json_keeps_the_kinds_of_its_values(write):
    values = [1, "1", True, None, 1.5, [1], {"a": "b"}, "true"]
    path = write("a.jsonl", "\n".join(json.dumps({"label": value}) for value in values))
    kept = cells(path)["label"]
    assert kept == values and [*map(type, kept)] == [*map(type, values)]


def test_columns_of_other_meanings_elsewhere_are_columns_here(write):
    """``datasets`` takes such lines for the log of an agent."""
    line = json.dumps({"type": "user", "message": {"a": "b"}})
    assert cells(write("a.jsonl", line)) == {"type": ["user"], "message": [{"a": "b"}]}


def test_unusual_line_separators_stay_in_the_text(write):
    line = json.dumps({"text": "one\u2028two\u0085three"}, ensure_ascii=False)
    assert cells(write("a.jsonl", f"{line}\r\n{line}"))["text"] == ["one\u2028two\u0085three"] * 2


def test_broken_json(write):
    good = '{"text": "a", "label": 1}\n'
    path = write("a.jsonl", good + "\n" + '{"text": "b"')
    refused(path, str(path), "line 3", "not valid JSON")
    refused(write("a.jsonl", good + "[1]"), "line 2", "[1] is not an object")
    refused(write("a.json", '[{"text": "a",\n"label" 1}]'), "line 2", "not valid JSON")
    refused(write("a.json", good + good), "line 2", "name it .jsonl")
    refused(write("b.json", "[1]"), "item 1", "not an object")


def test_lists_of_objects_alone(write):
    refused(write("a.json", "[]"), "at least one")
    refused(write("a.json", '{"text": "a"}'), "list of objects")
