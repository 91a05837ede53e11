"""Texts as they come, for every kind of task, to train on and to evaluate on."""

from __future__ import annotations

import copy
import gzip
import json
import os
from dataclasses import fields

import pytest

from helpers.forms import FORMS, ROWS, load, squad, written
from helpers.tasks import task_of

USES = pytest.mark.parametrize("use", ["train", "eval"])
FORM = pytest.mark.parametrize(("kind", "form"), FORMS)
KIND = pytest.mark.parametrize("kind", ROWS)


@pytest.fixture
def write(tmp_path):
    def _write(form, content):
        path = tmp_path / f"a.{form}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def contents(examples):
    """All but where they come from."""
    return [getattr(examples, one.name) for one in fields(examples) if one.name != "source"]


def refused(kind, path, use, *parts, **options):
    with pytest.raises(ValueError) as caught:
        load(kind, path, use, **options)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    assert len(message) < 2000 and "\n" not in message
    return message


# ------------------------------------------------------------------------------- line ends


def mixed(text):
    ends = ["\r", "\n", "\r\n"]
    lines = text.split("\n")
    return "".join(line + ends[at % 3] for at, line in enumerate(lines[:-1])) + lines[-1]


@FORM
@USES
@pytest.mark.parametrize(
    "ends",
    [lambda text: text.replace("\n", "\r"), lambda text: text.replace("\n", "\r\n"), mixed],
    ids=["CR", "CRLF", "mixed"],
)
def test_lines_may_end_in_any_way(write, kind, form, use, ends):
    expected = contents(load(kind, write(form, written(kind, form)), use))
    assert contents(load(kind, write(form, ends(written(kind, form))), use)) == expected


def test_line_ends_inside_of_quotes_stay(write):
    path = write("csv", 'text,label\r\n"one\r\ntwo",pos\r\n"three\rfour",neg\r\n')
    assert load("classification", path).texts == ["one\r\ntwo", "three\rfour"]


# ------------------------------------------------------------------------------ characters

HALF = "\ud83d"


def with_text(kind, change):
    """The examples with the first text changed."""
    rows = copy.deepcopy(ROWS[kind])
    row, name = rows[0], next(iter(rows[0]))
    if isinstance(row[name], list):
        row[name][0] = change(row[name][0])
    else:
        row[name] = change(row[name])
    return rows


@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1].startswith("json")])
@USES
def test_half_of_a_character(write, kind, form, use):
    path = write(form, written(kind, form, with_text(kind, lambda text: text + HALF)))
    assert "\\ud83d" in path.read_text()
    place = "line 1" if form == "jsonl" else "item 1"
    refused(kind, path, use, place, "half of a character")


@pytest.mark.parametrize("name", ["question", "context"])
def test_half_of_a_character_in_squads_form(write, name):
    rows = copy.deepcopy(ROWS["answers"])
    rows[0][name] += HALF
    refused("answers", write("json", json.dumps(squad(rows))), "eval", "q0", "half of a character")


def test_halves_that_nobody_asks_for_do_no_harm(write):
    rows = [{"note": HALF, **row} for row in ROWS["classification"]]
    assert (
        len(load("classification", write("jsonl", written("classification", "jsonl", rows)))) == 4
    )


def test_two_halves_are_one_character(write):
    path = write("jsonl", '{"text": "\\ud83d\\ude00", "label": "pos"}\n')
    assert load("classification", path).texts == ["\U0001f600"]


UNUSUAL = "\u00a0\u2028\u0085\u3000\x1c\x0b\x0c\ufeff\u200b"
"""Blanks that divide nothing, and marks that are none."""


@FORM
@USES
def test_unusual_blanks_stay_in_the_text(write, kind, form, use):
    rows = with_text(kind, lambda text: f"{text}{UNUSUAL}end")
    found = load(kind, write(form, written(kind, form, rows)), use)
    assert repr(UNUSUAL)[1:-1] in repr(contents(found))


@pytest.mark.parametrize("blank", UNUSUAL)
def test_words_in_columns_are_divided_by_blanks_and_tabs_alone(write, blank):
    found = load("tokens", write("conll", f"New{blank}York x B-loc\nAnn   x B-per\n"))
    assert found.sentences == [[f"New{blank}York", "Ann"]]
    found = load("tokens", write("conll", f"New{blank}York\tB-loc\n{blank}x\tO\n"))
    assert found.sentences == [[f"New{blank}York", f"{blank}x"]]


# ----------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1].endswith("json")])
@USES
def test_a_key_twice(write, kind, form, use):
    content = written(kind, form)
    name = "question" if kind == "answers" else next(iter(ROWS[kind][0]))
    doubled = content.replace(f'"{name}":', f'"{name}": "x", "{name}":', 1)
    assert doubled != content
    refused(kind, write(form, doubled), use, f"the key '{name}' twice")


@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1] in ("csv", "tsv")])
@USES
def test_a_name_twice_in_the_header(write, kind, form, use):
    delimiter = "," if form == "csv" else "\t"
    lines = written(kind, form).splitlines()
    for name in ROWS[kind][0]:
        content = "\n".join(
            [f"{lines[0]}{delimiter}{name}", *(f"{x}{delimiter}y" for x in lines[1:])]
        )
        refused(kind, write(form, content), use, f"'{name}' 2 times", "its own name")


@pytest.mark.parametrize("kind", ["classification", "language", "summaries"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_twice(tmp_path, kind, form):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / f"a.{form}"
    names = [*ROWS[kind][0], next(iter(ROWS[kind][0]))]
    table = pyarrow.table([pyarrow.array(["x"])] * len(names), names=names)
    if form == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    refused(kind, path, "eval", "more than one column 'text'", "its own name")


@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1] in ("csv", "tsv")])
def test_the_header_once_more(write, kind, form):
    content = written(kind, form)
    count = len(content.splitlines())
    both = content + content
    refused(kind, write(form, both), "train", f"line {count + 1}", "the header once more")


# ----------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", [*ROWS, "images"])
@USES
@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json", "a.parquet", "a.arrow", "a.csv.gz", "a"],
)
def test_a_pipe_is_not_waited_for(tmp_path, kind, use, name):
    os.mkfifo(tmp_path / name)
    refused(kind, tmp_path / name, use)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    "encoding",
    ["rot13", "base64", "zlib", "hex", "uu", "bz2", "utf-9", "undefined", "", "\x1b[31m"],
)
def test_encodings_that_make_no_text(write, kind, encoding):
    form = next(form for one, form in FORMS if one == kind)
    path = write(form, written(kind, form))
    with pytest.raises(ValueError, match=r"--encoding is .* try utf-8") as caught:
        load(kind, path, encoding=encoding)
    assert "\x1b" not in str(caught.value)


@FORM
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])
def test_encodings_that_do(write, kind, form, encoding):
    content = written(kind, form)
    expected = contents(load(kind, write(form, content)))
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path = write(form, (mark + content).encode(encoding))
    assert contents(load(kind, path, encoding=encoding)) == expected


def test_an_encoding_that_makes_halves(write):
    path = write("csv", b"text,label\na+2D0-,pos\n")
    refused("classification", path, "eval", "half of a character", encoding="utf-7")


@pytest.mark.parametrize("kind", ROWS)
def test_what_unpacks_to_more_than_a_text_does(tmp_path, kind):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (80 << 20)))
    refused(kind, path, "eval", "200 times its size")


# -------------------------------------------------------------------------- separated files


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_a_spreadsheet_says_of_its_separator(write, first, end):
    path = write("csv", end.join([first, "text;label", '"a; b";pos', "c;neg;", ""]))
    refused("classification", path, "eval", "line 4", "3 columns")
    path = write("csv", end.join([first, "text;label", '"a; b";pos', "c;neg", ""]))
    found = load("classification", path)
    assert (found.texts, found.labels) == (["a; b", "c"], [1, 0])
    path = write("csv", end.join([first, "text|label", "a|pos", ""]))
    assert load("classification", path, delimiter="|").texts == ["a"]


@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1] in ("csv", "tsv")])
@USES
def test_empty_rows_at_the_end(write, kind, form, use):
    content = written(kind, form)
    expected = contents(load(kind, write(form, content), use))
    delimiter = "," if form == "csv" else "\t"
    width = len(ROWS[kind][0])
    for row in (delimiter * (width - 1), delimiter * (width + 3), "  ", f" {delimiter} "):
        assert contents(load(kind, write(form, content + f"{row}\n" * 3), use)) == expected


def test_an_empty_row_among_others_is_named(write):
    path = write("csv", "text,label\na,pos\n,\nb,neg\n")
    refused("classification", path, "train", "line 3", "take the row out")


def test_columns_that_another_character_divides(write):
    for delimiter in ";|\t":
        content = f"text{delimiter}label\na{delimiter}pos\n"
        refused("classification", write("csv", content), "eval", "See --delimiter", repr(delimiter))


def test_comments(write):
    path = write("csv", "# made by hand\ntext,label\na,pos\n")
    refused("classification", path, "eval", "line 2", "a comment?", "'# made by hand'")
    plain = "Ann\tB-per\n\nin\tO\nRome\tB-loc\n#\tO\n"
    noted = "# id 1\n# text = Ann\nAnn\tB-per\n\n#\n# two\nin\tO\nRome\tB-loc\n#\tO\n"
    assert contents(load("tokens", write("conll", noted))) == contents(
        load("tokens", write("conll", plain))
    )
    refused("tokens", write("conll", "Ann\tB-per\n# no tag\n"), "eval", "line 2")


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r", "ab", ""])
def test_separators_that_are_none(delimiter):
    for kind in ROWS:
        with pytest.raises(ValueError, match=r"--delimiter is .* one character"):
            task_of(kind=kind, delimiter=delimiter).format()


def test_very_many_columns_are_gathered_one_by_one(write):
    rows = "".join(f'{{"text": "t {i}", "label": "pos", "k{i}": 1}}\n' for i in range(4000))
    assert len(load("classification", write("jsonl", rows))) == 4000
    wide = "pos\ta\n" * 3000 + "neg\tb" + "\tx" * 30_000 + "\n"
    options = {"header": False, "text_column": "2", "label_column": "1"}
    assert len(load("classification", write("tsv", wide), **options)) == 3001


# --------------------------------------------------------------------------------- answers

WRITTEN = [
    "{'text': ['film'], 'answer_start': [4]}",
    '{"text": ["film"], "answer_start": [4]}',
    "{'text': array(['film'], dtype=object), 'answer_start': array([4], dtype=int32)}",
    "{'answer_start': array([4]), 'text': array(['film'], dtype='<U4')}",
    "[{'text': 'film', 'answer_start': 4}]",
    " {'text': ['film'], 'answer_start': [4]} ",
]


@pytest.mark.parametrize("cell", WRITTEN)
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
@USES
def test_answers_as_python_writes_them(write, cell, form, use):
    rows = [{"question": "what", "context": "the film's good", "answers": cell}]
    [question] = load("answers", write(form, written("answers", form, rows)), use).rows
    assert [(one.text, one.start) for one in question.answers] == [("film", 4)]


@pytest.mark.parametrize(
    "cell",
    [
        "{'text': open('x'), 'answer_start': [4]}",
        "{'text': array(open('x')), 'answer_start': [4]}",
        "{'text': ['film'] * 10**9, 'answer_start': [4]}",
        "{'text': [...], 'answer_start': [4]}",
        "{'a': " + "[" * 5000,
        "{'a': " + "-" * 100_000 + "1}",
        "{'text': ['film']",
        "in 1889",
        "{'text': [b'film'], 'answer_start': [4]}",
        '{"text": ["film"], "text": ["the"], "answer_start": [4]}',
    ],
)
def test_answers_that_are_none(write, cell, tmp_path):
    rows = [{"question": "what", "context": "the film", "answers": cell}]
    path = write("jsonl", written("answers", "jsonl", rows))
    refused("answers", path, "eval", "line 1", "answer")


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("summaries", "prefix"),
        ("classification", "text_column"),
        ("answers", "context_column"),
        ("tokens", "tags_column"),
        ("language", "encoding"),
    ],
)
def test_options_that_are_no_text(kind, option):
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')} is .*udcff.*in UTF-8"):
        task_of(kind=kind, **{option: os.fsdecode(b"\xff ")})
