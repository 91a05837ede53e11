"""Files that others wrote, read within bounds: whatever is wrong with one ends in one sentence.

Small files of keys and values are read here whole; readers of anything else work inside
:func:`reading`. Nothing that a file says is executed, and no more of it is held than the bounds.
"""

from __future__ import annotations

import json
import pickle
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from sentei.messages import explain, printable, short

MOST_BYTES: Final = 64 * 2**20
"""Of a file of keys and values: a report with a record of every matrix is far smaller."""

MOST_YAML: Final = 2**20
"""Characters of YAML, which people write by hand and which is slow to read."""

DEEPEST: Final = 100
"""Lists and mappings inside one another."""

_LONGEST = 400


def reason(error: BaseException) -> str:
    """What went wrong, for the middle of a sentence: one line that a terminal can show."""
    if isinstance(error, ValidationError):
        said = explain(error)
    elif isinstance(error, UnicodeDecodeError):
        said = f"byte 0x{error.object[error.start]:02x} at {error.start} is not {error.encoding}"
    elif isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = f"{error.problem}{place}"
    elif isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if "\n" in error.doc else ""
        said = f"{error.msg} in {line}column {error.colno}"
    elif isinstance(error, RecursionError):
        said = "nested too deeply"
    elif isinstance(error, MemoryError):
        said = "it needs more memory than there is"
    elif isinstance(error, pickle.UnpicklingError):
        said = "a pickle that is cut short, or of more than plain data, which is never run"
    elif isinstance(error, EOFError):
        said = "it ends too early"
    elif isinstance(error, OSError) and error.strerror:
        said = error.strerror
    elif isinstance(error, KeyError) and error.args:
        said = f"it has no {short(error.args[0])}"
    else:
        said = str(error)
    line = " ".join(printable(said[: 4 * _LONGEST]).split()) or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


@contextmanager
def reading(
    what: object, fix: str = "it is damaged or of another kind", failed: str = "cannot be read"
) -> Iterator[None]:
    """Around whatever reads a foreign file with the code of others, which may raise anything.

    A ModuleNotFoundError tells of a missing package, and a ValueError whose message begins with
    ``what`` is a sentence already: both pass.

    Args:
        what: The file, as the message is to call it.
        fix: What to do, or what it means.
        failed: What did not succeed.

    Raises:
        ValueError: Something went wrong.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        if isinstance(error, ValueError) and str(error).startswith(str(what)):
            raise
        raise ValueError(f"{what}: {failed} ({reason(error)}); {fix}") from error


_PANIC = "PanicException"
"""What code in Rust raises, such as tokenizers': no Exception, and a class without a home."""


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    """The text of a small file in UTF-8, with a byte-order mark or without.

    Raises:
        ValueError: It is missing, no plain file, of more than ``most`` bytes, or not UTF-8.
    """
    path = Path(path)
    with reading(path, "name a text file in UTF-8"):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device has no end
            raise ValueError(f"{path}: it is no plain file; name a text file in UTF-8")
        if status.st_size > most:
            raise ValueError(
                f"{path}: it has {status.st_size:,} bytes, and at most {most:,} are read; name the "
                "file that was meant"
            )
        with path.open("rb") as file:
            return file.read(most).decode("utf-8-sig")


def parse_json(text: str, what: object) -> Any:
    """The value of a text in JSON; no object has a key twice.

    Raises:
        ValueError: It is not JSON, or nested more than :data:`DEEPEST` deep.
    """
    with reading(what, "it is not valid JSON"):
        value = json.loads(text, object_pairs_hook=_object)
        _check_depth([value])
        return value


def parse_yaml(text: str, what: object) -> Any:
    """The value of a text in YAML: plain values without aliases, and no mapping has a key twice.

    ``2:4`` is text here, and no number to the base of 60.

    Raises:
        ValueError: It is not such YAML, longer than :data:`MOST_YAML` or nested more than
            :data:`DEEPEST` deep.
    """
    if len(text) > MOST_YAML:
        raise ValueError(
            f"{what}: it has {len(text):,} characters, and at most {MOST_YAML:,} of YAML are read"
        )
    with reading(what, "it is not valid YAML"):
        return yaml.load(text, _Loader)


def to_yaml(value: Any) -> str:
    """A value in the YAML that :func:`parse_yaml` reads, with the order of its keys."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: As of :func:`read_text` and :func:`parse_json`; names the file.
    """
    return parse_json(read_text(path), path)


def read_yaml(path: str | Path) -> Any:
    """The value of a YAML file.

    Raises:
        ValueError: As of :func:`read_text` and :func:`parse_yaml`; names the file.
    """
    return parse_yaml(read_text(path), path)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {short(twice)} twice")
    return found


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        insides = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for inside in insides for one in inside if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEEPEST} deep")


class _Dumper(yaml.SafeDumper):
    """Without aliases: what comes twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    """Without numbers to the base of 60, aliases, keys that come twice, and great depth."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:int"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth += 1
        if isinstance(event, yaml.AliasEvent):
            problem = f"the alias *{event.anchor}: write its value out"
        elif self._depth > DEEPEST:
            problem = f"nested more than {DEEPEST} deep"
        else:
            node = super().compose_node(parent, index)
            self._depth -= 1
            return node
        raise yaml.composer.ComposerError(None, None, problem, event.start_mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            seen = set[Any]()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {short(key)} comes twice", key_node.start_mark
                    )
                seen.add(key)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    [*"-+0123456789"],
)
