"""The application: how verbs are added, how errors end, and what is printed where."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TextIO, cast

import typer
import typer.core
from pydantic import BaseModel
from rich.text import Text

from sentei._version import VERSION
from sentei.cli.console import Console, clipped, leave
from sentei.distributed import is_main, of_another
from sentei.files import expanded
from sentei.messages import SenteiWarning, cut, printable
from sentei.untrusted import reason

P = ParamSpec("P")

USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130

_UsageError: Final = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])
"""What typer raises for words that it cannot take; in which module, its version decides."""


class _Application(typer.core.TyperGroup):
    """The command. What typer refuses ends as what verbs refuse."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **how: Any) -> Any:
        """Take the words of a command line, do what they say and end the process."""
        words = sys.argv[1:] if args is None else list(args)
        try:
            code = super().main(words, *others, **{**how, "standalone_mode": False})
            sys.stdout.flush()
        except _UsageError as error:
            _say(f"{error.format_message()} {_help_of(error)}".strip(), "--json" in words)
            code = USER_ERROR
        except BrokenPipeError:
            leave(sys.stdout)
        sys.exit(code)


def _help_of(error: typer.BadParameter) -> str:
    return f"(see {error.ctx.command_path} --help)" if error.ctx else ""


app = typer.Typer(
    name="sentei",
    cls=_Application,
    help="Prune pretrained transformers while they are fine-tuned.",
    add_completion=False,
    rich_markup_mode=None,
)

_silent = not is_main()
_answers: TextIO | None = None
"""Where the one JSON value goes while standard output is kept for it."""

errors = Console(stderr=True, quiet=_silent)
output = Console(quiet=_silent)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]


def main() -> None:
    """Run the command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # closed by who started it
        stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks
        setattr(sys, name, stream)
    warnings.showwarning = _show_warning
    app()


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Add a verb. What the user can mend ends in one sentence; the rest keeps its traceback."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("json"))
        for name, value in kwargs.items():
            kwargs[name] = _at_home(value)
        with _only_json() if as_json else nullcontext():
            try:
                function(*args, **kwargs)
            except (typer.Exit, typer.Abort, _UsageError):
                raise
            except (Exception, KeyboardInterrupt) as error:
                if os.environ.get("SENTEI_DEBUG"):
                    raise
                words, code = _ending(error)
                _say(words, as_json)
                raise typer.Exit(code) from None

    app.command()(run)
    return run


def _at_home(value: Any) -> Any:
    """A path that was typed, with the home folder where a ``~`` begins it; other values as are."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return expanded(value) if isinstance(value, Path) else value


def _ending(error: BaseException) -> tuple[str, int]:
    """What is said of an error, and with which code the process ends."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped", INTERRUPTED
    if isinstance(error, (ValueError, ModuleNotFoundError)):
        return str(error), USER_ERROR
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{cut(os.fsdecode(error.filename), 200)}: {error.strerror}", FAILURE
    if isinstance(error, (OSError, FloatingPointError)):
        return str(error), FAILURE
    if _is_out_of_memory(error):
        return (
            f"out of memory ({reason(error)}); take a smaller --batch-size or --max-length. A run "
            "that was begun goes on from its last checkpoint with --resume",
            FAILURE,
        )
    if words := of_another(error):
        return words, FAILURE
    if isinstance(error, (EOFError, RecursionError)):
        return f"a file cannot be read ({reason(error)}); SENTEI_DEBUG=1 shows where", FAILURE
    Console(stderr=True).print(traceback.format_exc().rstrip(), soft_wrap=True)
    return f"{type(error).__name__}: {reason(error)}", FAILURE


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's, and torch's, which has a class of its own for accelerators and none for CPUs."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return (
        isinstance(error, MemoryError)
        or "OutOfMemoryError" in names
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def show_json(record: BaseModel | dict[str, Any] | list[Any]) -> None:
    """One JSON value on standard output."""
    if _silent:
        return
    data = record.model_dump(mode="json") if isinstance(record, BaseModel) else record
    stream = _answers or sys.stdout
    try:
        print(json.dumps(_finite(data), indent=2, allow_nan=False), file=stream, flush=True)
    except BrokenPipeError:
        leave(stream)


def _finite(data: Any) -> Any:
    """Plain data with NaN and infinity as texts, which JSON has no numbers for."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(data)]
    return data


@contextmanager
def _only_json() -> Iterator[None]:
    """Standard output is one JSON value: what libraries print goes to standard error."""
    global _answers
    _answers = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _answers = None


def _say(message: str, as_json: bool) -> None:
    """An error, by whichever process it comes from."""
    words = clipped(printable(message))
    if as_json:
        show_json({"error": words})
    else:
        line = Text.assemble(("Error: ", "bold red"), words)
        Console(stderr=True).print(line, soft_wrap=True)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(VERSION)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(USER_ERROR)


def warn(message: str) -> None:
    """One line on standard error."""
    errors.print(clipped(message), style="yellow", soft_wrap=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of ours without the line of code that it comes from; others as Python does."""
    if issubclass(category, SenteiWarning):
        warn(f"Warning: {message}")
    else:
        errors.print(warnings.formatwarning(message, category, filename, lineno).rstrip())
