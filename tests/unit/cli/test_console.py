"""What is printed: the texts of others as they are, to readers that may be gone."""

from __future__ import annotations

import io
import json as json_of
import os
import subprocess
import sys
from contextlib import redirect_stderr

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from sentei.cli.app import JsonOption, app, show_json, verb
from sentei.cli.console import LONGEST, Console, clipped

FOREIGN = [
    ("[/nope]", "[/nope]"),
    ("[bold]x[/]", "[bold]x[/]"),
    ("[link=file:///etc/passwd]x[/link]", "[link=file:///etc/passwd]x[/link]"),
    (r"\[x]", r"\[x]"),
    (":warning: :bomb:", ":warning: :bomb:"),
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    ("\x1b]8;;http://x\x07link", r"\x1b]8;;http://x\x07link"),
    ("a\rb", r"a\rb"),
    ("a\x08\x7f", r"a\x08\x7f"),
    ("\x9b31m", r"\x9b31m"),
    ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
    ("half \udc80", r"half \udc80"),
    ("日本語 é", "日本語 é"),
]
"""A text of somebody else, and what is to be seen of it."""


def screen(show) -> str:
    """What a terminal with colours is sent by ``show(console)``."""
    sent = io.StringIO()
    sent.isatty = lambda: True
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(sent):
        patch.setenv("TERM", "xterm-256color")
        show(Console(stderr=True))
    return sent.getvalue()


def table(text):
    made = Table(title=None)
    made.add_column(text)
    made.add_row(text)
    return made


@pytest.mark.parametrize(("text", "shown"), FOREIGN)
@pytest.mark.parametrize(
    "wrap",
    [str, table, Text, lambda text: Text.assemble(("Error: ", "bold red"), text)],
    ids=["text", "table", "Text", "styled"],
)
def test_foreign_text_is_shown_and_not_obeyed(wrap, text, shown):
    sent = screen(lambda console: console.print(wrap(text), soft_wrap=True))
    if wrap not in (str, table):  # of these rich leaves bells and returns out
        shown = shown.replace(r"\r", "").replace(r"\x07", "").replace(r"\x08", "")
    assert shown in sent
    assert not {"\x9b", "\u202e", "\udc80"} & {*sent}
    for code in ("\x1b[31mred", "\x1b]8", "\x08"):
        assert code not in sent


def test_a_column_is_as_wide_as_what_is_shown():
    sent = screen(lambda console: console.print(table("\x1b" * 5)))
    first, *others = sent.rstrip("\n").split("\n")
    assert {len(Text.from_ansi(line).plain) for line in others} == {len(first)}


@pytest.mark.parametrize(("text", "shown"), FOREIGN)
def test_progress_shows_it_too(text, shown):
    def show(console):
        column = TextColumn("{task.description}", markup=False)
        with Progress(column, console=console, auto_refresh=False) as bar:
            bar.add_task(text, total=1)

    sent = screen(show)
    assert "\x1b[31mred" not in sent and "\udc80" not in sent and shown[:1] in sent
    assert "\x1b[?25l" in sent  # what hides the cursor is rich's own, and is sent


def test_a_message_of_any_length_is_cut_and_keeps_both_ends():
    assert clipped("x" * LONGEST) == "x" * LONGEST
    cut = clipped("begin " + "x" * 200_000 + " end")
    assert len(cut) <= LONGEST and cut.startswith("begin") and cut.endswith("end")


def run(code: str, *arguments: str, **how):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **how)


MAIN = "from sentei.cli import main; main()"


def test_a_reader_that_leaves_ends_it_quietly():
    """As after ``sentei methods | head -1``."""
    for arguments in (["methods"], ["methods", "--json"], ["--version"], ["prune", "--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-c", MAIN, *arguments]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, b""), arguments


def test_work_goes_on_when_nobody_reads_standard_error():
    code = (
        "from sentei.cli.app import errors, warn, show_json\n"
        "for _ in range(3):\n    errors.print('Loading ...')\n"
        "warn('lost')\nshow_json({'done': True})"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer, timeout=60
    )
    os.close(writer)
    assert done.returncode == 0 and done.stdout == b'{\n  "done": true\n}\n'


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "show", "é"], ["--help"]])
def test_a_terminal_without_unicode_loses_no_word(arguments):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = run(MAIN, *arguments, env=environment)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
    assert "platon" in done.stdout or r"\xe9" in done.stderr or "Usage" in done.stdout


def test_closed_streams_are_no_reason_to_fail():
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        command = f"exec {sys.executable} -c '{MAIN}' methods {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "Traceback" not in done.stderr, closed


def test_warnings_of_ours_are_one_line_and_obey_nobody():
    code = (
        "import warnings\nfrom sentei.cli import app, main\nfrom sentei.messages import "
        "SenteiWarning\nfrom sentei.cli.app import verb\n"
        "@verb\ndef warns() -> None:\n"
        "    warnings.warn('column \\x1b[31m[/x]', SenteiWarning)\n"
        "    warnings.warn('foreign \\x1b[31m', UserWarning)\n"
        "main()"
    )
    done = run(code, "warns")
    assert done.returncode == 0 and "\x1b" not in done.stderr
    first, second, *_ = done.stderr.splitlines()
    assert first == r"Warning: column \x1b[31m[/x]" and r"UserWarning: foreign \x1b[31m" in second


# ------------------------------------------------------------------------------- the last resort


@pytest.fixture
def raising(monkeypatch):
    """Runs a verb that ends in an error."""
    monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])

    def run(error: BaseException, *arguments: str):
        def fails(json: JsonOption = False) -> None:
            print("what a library prints")
            raise error

        verb(fails)
        return CliRunner().invoke(app, ["fails", *arguments])

    return run


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


ENDS = [
    (ValueError("no [/x] \x1b"), 2, r"no [/x] \x1b"),
    (OSError(28, "No space left on device", "/a/b"), 1, "No space left"),
    (FloatingPointError("NaN"), 1, "NaN"),
    (KeyboardInterrupt(), 130, "stopped"),
    (MemoryError(), 1, "out of memory"),
    (OutOfMemoryError("CUDA out of memory"), 1, "--batch-size"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory"),
    (RecursionError("maximum recursion depth exceeded"), 1, "nested too deeply"),
    (EOFError("Ran out of input"), 1, "it ends too early"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "0xff"),
    (ValueError("x" * 300_000), 2, "xxx ... xxx"),
    (TypeError("a fault \x1b[31m of ours"), 1, "TypeError: a fault"),
]


@pytest.mark.parametrize(("error", "code", "words"), ENDS, ids=lambda one: type(one).__name__)
def test_every_error_ends_in_a_sentence(raising, error, code, words):
    done = raising(error)
    assert done.exit_code == code and words in done.stderr and "Error: " in done.stderr
    assert "\x1b" not in done.output and len(done.stderr) < 6000
    expected = isinstance(error, TypeError)
    assert ("Traceback" in done.stderr) == expected  # a fault of ours is to be found


@pytest.mark.parametrize(("error", "code", "words"), ENDS, ids=lambda one: type(one).__name__)
def test_every_error_is_one_json_value(raising, error, code, words):
    done = raising(error, "--json")
    assert done.exit_code == code and words in json_of.loads(done.stdout)["error"]
    assert "what a library prints" in done.stderr and len(done.stdout) < 6000


LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prune", "--modle", "x"], "No such option: --modle"),
        (["prune", "--epochs", "many", "--out", "x"], "--epochs"),
        (["prune", "--out"], "--out"),
        (["prune"], "Missing option '--out'"),
        (["prune", "--out", "x", "y\x1b[31m"], r"y\x1b[31m"),
        (["augment", "--copies", "0", "--out", "x"], "--copies"),
        (["bench", "x", "--batch", LONG], "--batch"),
        (["bench", "--no-such[/x]\x1b"], r"--no-such[/x]\x1b"),
        ([f"--{LONG}"], "No such option"),
        ([LONG], "No such command"),
        (["\x1b[31m"], r"\x1b[31m"),
    ],
    ids=lambda value: value[0][:9] if isinstance(value, list) else "",
)
def test_what_typer_refuses_ends_alike(arguments, words):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and words in done.stderr and not done.stdout
    assert "\x1b" not in done.stderr and len(done.stderr) < 2100
    done = CliRunner().invoke(app, [*arguments[:1], "--json", *arguments[1:]])
    assert done.exit_code == 2 and not done.stderr
    error = json_of.loads(done.stdout)["error"]
    assert "\x1b" not in error and len(error) <= 2000


def test_no_words_ask_for_help():
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2 and "Commands" in done.stderr


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_texts(number, capsys):
    show_json({"a": [number], "b": {"c": (1.5, number)}})
    text = capsys.readouterr().out
    refuse = pytest.fail
    read = json_of.loads(text, parse_constant=refuse)
    assert float(read["a"][0]) == pytest.approx(number, nan_ok=True) and read["b"]["c"][0] == 1.5
