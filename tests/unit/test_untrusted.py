"""Files that others wrote: within bounds, and one sentence for whatever is wrong with one."""

from __future__ import annotations

import os

import pytest
import yaml
from safetensors import safe_open

from sentei.untrusted import (
    DEEPEST,
    MOST_YAML,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
    reading,
    reason,
    to_yaml,
)

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "the alias *a0: write its value out in line 2"),
        ("a: 1\nb: 2\na: 3\n", "the key 'a' comes twice in line 3"),
        ("[" * 5000, f"nested more than {DEEPEST} deep"),
        ("- " * 5000 + "x", f"nested more than {DEEPEST} deep"),
        ("{a: " * 500 + "1" + "}" * 500, f"nested more than {DEEPEST} deep"),
        ("x: !!python/object/apply:os.system ['false']", "could not determine a constructor"),
        ("when: 2001-99-99", "month must be in 1..12"),
        (f"n: {'9' * 5000}", "digits"),
        ("a: [1, 2", "expected ',' or ']'"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\x00", "special characters are not allowed"),
        ("? [a, b]\n: 1", "unhashable"),
        ("x" * (MOST_YAML + 1), "characters"),
        ("{1: a, 1.0: b, true: c}", "comes twice"),
    ],
)
def test_yaml_is_refused_in_a_sentence(text, said):
    with pytest.raises(ValueError, match=r"^plan\.yaml: ") as refused:
        parse_yaml(text, "plan.yaml")
    message = str(refused.value)
    assert said in message and "\n" not in message and len(message) < 600


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2:4", {"a": "2:4"}),
        ("a: 0x10", {"a": 16}),
        ("a: 1e-3", {"a": "1e-3"}),
        ("a: &name [1]", {"a": [1]}),
        ("<<: {a: 1}\nb: 2", {"a": 1, "b": 2}),
        ("[" * DEEPEST + "]" * DEEPEST, None),
        ("", None),
    ],
)
def test_yaml_as_people_write_it(text, value):
    found = parse_yaml(text, "plan.yaml")
    assert value is None or found == value
    assert found == yaml.safe_load(text) or ":" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "an object has the key 'a' twice"),
        ('{"x": {"a": 1, "a": 2}}', "twice"),
        ("[" * 400 + "]" * 400, f"nested more than {DEEPEST} deep"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 300 + "1" + "}" * 300, f"nested more than {DEEPEST} deep"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": "\x01"}', "control character"),
    ],
)
def test_json_is_refused_in_a_sentence(text, said):
    with pytest.raises(ValueError, match=r"^report\.json: ") as refused:
        parse_json(text, "report.json")
    assert said in str(refused.value) and len(str(refused.value)) < 600


def test_what_is_no_text_file_is_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("a: caf\xe9".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "big.yaml").write_bytes(b" " * 101)
    (tmp_path / "folder").mkdir()
    for name, said in {
        "missing.yaml": "No such file",
        "latin.yaml": "byte 0xe9 at 6 is not utf-8",
        "pipe.yaml": "no plain file",
        "folder": "no plain file",
        "big.yaml": "101 bytes, and at most 100 are read",
        "nul\0.yaml": "null byte",
    }.items():
        with pytest.raises(ValueError, match=said):
            read_text(tmp_path / name, most=100)


def test_whole_files(tmp_path):
    file = tmp_path / "value"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(file) == '{"a": 1}' and read_json(file) == read_yaml(file) == {"a": 1}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (MemoryError(), "it needs more memory than there is"),
        (EOFError(), "it ends too early"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory"),
        (KeyError("weights"), "it has no 'weights'"),
        (TypeError("a\nb\x1b[31m"), r"a b\x1b[31m"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("long " * 10_000), "long long"),
    ],
)
def test_the_reason_is_one_short_line(error, said):
    line = reason(error)
    assert line.startswith(said) and "\n" not in line and "\x1b" not in line and len(line) <= 400


def test_whatever_a_reader_raises_names_the_file(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="cannot be read") as refused, reading(file):
        safe_open(file, framework="pt").__enter__()
    assert str(refused.value).startswith(f"{file}: ") and refused.value.__cause__ is not None


def test_what_is_a_sentence_already_stays_as_it_is():
    with pytest.raises(ValueError, match=r"^x\.json: its step is -1$"), reading("x.json"):
        raise ValueError("x.json: its step is -1")
    with pytest.raises(ModuleNotFoundError), reading("x.json"):
        raise ModuleNotFoundError("it needs yaml2: pip install yaml2")
    with pytest.raises(KeyboardInterrupt), reading("x.json"):
        raise KeyboardInterrupt


def test_what_is_written_has_no_aliases_and_is_read_back():
    shared = {"steps": [1, 2.5, "2:4"]}
    value = {"second": shared, "first": [shared, shared]}
    text = to_yaml(value)
    assert "&" not in text and "*" not in text and text.startswith("second:")
    assert parse_yaml(text, "plan.yaml") == value
