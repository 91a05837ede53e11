"""What reaches a terminal: words as they are, and never as markup or as codes that it obeys."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, NoReturn, TextIO

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from sentei.messages import printable

LONGEST: Final = 2000
"""Characters of a message: more than any sentence of ours with a long path in it."""


class Console(rich.console.Console):
    """Prints text. Names of files, labels, columns and methods are of others, and may be anything.

    Square brackets and colons are text, and control characters are shown; styles are arguments.

    Args:
        stderr: Standard error instead of standard output. If nobody reads it any more, work goes on
            unheard; a reader of standard output that has left wants no more, and all ends.
        quiet: Print nothing.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text, such as a table's cell, before its width is taken."""
        return super().render_str(printable(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Whatever is printed, in pieces; those that move the cursor are rich's own."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=printable(piece.text))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what was printed."""
        try:
            super().__exit__(kind, error, trace)
        except OSError as failure:
            if self.stderr:
                self.quiet = True
                forget(sys.stderr)
            elif isinstance(failure, BrokenPipeError):
                leave(sys.stdout)
            else:
                raise

    def on_broken_pipe(self) -> None:
        """Not here: it would end what goes on unheard."""
        raise


def leave(stream: TextIO) -> NoReturn:
    """End without words: the reader of standard output has seen enough, and left."""
    forget(stream)
    sys.exit(1)


def forget(stream: TextIO) -> None:
    """Let a stream without a reader end in nothing, also what Python writes to it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def clipped(message: str) -> str:
    """A message that fits a screen: where it is far longer than a sentence, its begin and end."""
    if len(message) <= LONGEST:
        return message
    return f"{message[: LONGEST - 600]} ... {message[-500:]}"
