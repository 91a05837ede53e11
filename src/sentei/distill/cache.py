"""A teacher's outputs on disk: each example asks it once, in whatever batch it comes again.

A folder holds one SQLite database with a row for each example. What is written in one transaction
is there whole or not at all, and the processes of one machine read and write it at once.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sentei import messages
from sentei.distill.examples import (
    AXES,
    Example,
    Tensors,
    cut,
    examples_of,
    pad,
    to_arrays,
    to_outputs,
)
from sentei.distill.outputs import Outputs
from sentei.files import expanded

FORMAT = 2
FILE = "outputs.sqlite"

# Large pages, since a row may take megabytes, and read in place as far as SQLite does that. A
# commit does not wait for the disk: what a crash of the machine takes with it is computed again.
_TABLES = """
PRAGMA page_size = 8192;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA mmap_size = 2147418112;
CREATE TABLE IF NOT EXISTS header (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outputs (
    key BLOB PRIMARY KEY, crc INTEGER NOT NULL,
    logits BLOB, token_logits BLOB, hidden BLOB, attention BLOB
);
"""
_READ = "SELECT crc, logits, token_logits, hidden, attention FROM outputs WHERE key = ?"
_ADD = "INSERT OR IGNORE INTO outputs VALUES (?, ?, ?, ?, ?, ?)"

ROW_BYTES = 60
"""Of a row besides its numbers, about: its key, twice, and a checksum."""


class TeacherCache:
    """Keeps a teacher's outputs, without padding, by the tokens that it read.

    Args:
        folder: Made if it does not exist, on a disk of this machine. It serves one teacher and one
            choice of layers, and any number of processes at once.
        dtype: What numbers are kept in; float16 halves the folder and rounds.
    """

    def __init__(
        self, folder: str | Path, *, dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        self.folder = expanded(folder)
        self.dtype = dtype
        self._layers: dict[str, int] = {}
        self._header: dict[str, str] = {}
        self._database: sqlite3.Connection | None = None

    def __len__(self) -> int:
        if not (self.folder / FILE).is_file():
            return 0
        with self._explained(), closing(self._connect()) as database:
            return int(database.execute("SELECT count(*) FROM outputs").fetchone()[0])

    # ---------------------------------------------------------------------------- opening

    def bind(
        self, teacher: str, layers: Mapping[str, Sequence[int]], attention_of: str = "scores"
    ) -> None:
        """Open the folder for one teacher.

        Args:
            teacher: Its :func:`fingerprint`.
            layers: Those in its :class:`Outputs`: of ``hidden`` states (0 is the embedding output)
                and of ``attention``.
            attention_of: What is kept of the attention.

        Raises:
            ValueError: The folder holds another teacher's outputs, other layers or numbers, or is
                damaged.
            OSError: It cannot be written.
        """
        self.close()
        if (self.folder / "cache.json").exists():
            raise self._refusal("was written by another version of Sentei")
        self._layers = {name: len(numbers) for name, numbers in layers.items()}
        header = {
            "format": FORMAT,
            "teacher": teacher,
            "layers": {name: list(numbers) for name, numbers in layers.items()},
            "dtype": self.dtype,
            "attention": attention_of,
        }
        self._header = {name: json.dumps(value) for name, value in header.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._database = self._connect()
            self._check_header(self._database)

    @property
    def is_open(self) -> bool:
        """Whether it is bound to a teacher."""
        return self._database is not None

    def close(self) -> None:
        """Let go of the folder; :meth:`bind` opens it again."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / FILE
        database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            database.executescript(_TABLES)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _check_header(self, database: sqlite3.Connection) -> bool:
        """Whether the folder has an owner yet, which must be ours."""
        header = dict(database.execute("SELECT name, value FROM header"))
        if header:
            header.setdefault("attention", json.dumps("scores"))  # the only kind there was
        reasons = {
            "format": "was written by another version of Sentei",
            "teacher": "holds the answers of another teacher",
            "layers": "holds other layers",
            "dtype": f"holds {_said(header, 'dtype')} numbers",
            "attention": f"holds attention {_said(header, 'attention')}",
        }
        for name, reason in reasons.items():
            if header and header.get(name) != self._header[name]:
                self.close()
                raise self._refusal(reason)
        return bool(header)

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(f"{self.folder}: {reason}; name another folder, or remove this one")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors as what they are: a disk that fails, or a file that is damaged."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.folder / FILE}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._refusal(f"is damaged ({error})") from error

    # ------------------------------------------------------------------------------ batches

    def outputs(
        self,
        inputs: Mapping[str, Any],
        precision: str,
        device: torch.device,
        run: Callable[[], Outputs],
    ) -> Outputs:
        """The teacher's outputs on a batch, in float32, 0 where padding is.

        They are always those that were kept first, so that a run goes the same way whether its
        cache was full, empty or half full.

        Args:
            inputs: What the teacher reads.
            precision: What it computes in.
            device: Where its outputs go.
            run: Runs the teacher; called only if an example is not there, or damaged.

        Raises:
            ValueError: The batch holds something else that a model reads, or the file is damaged.
            OSError: The disk is full, or fails.
        """
        examples = examples_of(inputs, precision)
        with self._explained():
            tensors = self._read(examples)
        if missing := [i for i, example in enumerate(examples) if example.key not in tensors]:
            batch = to_arrays(run())
            # Backwards, so that of an example that is there twice the first is kept.
            fresh = {examples[i].key: cut(examples[i], i, batch) for i in reversed(missing)}
            with self._explained():
                self._add(fresh)
                tensors = self._read(examples)
        return to_outputs(pad(examples, tensors, inputs["input_ids"].shape[1]), device)

    def _read(self, examples: Sequence[Example]) -> dict[bytes, Tensors]:
        """Tensors of the examples that are there, by key; a damaged row is taken out."""
        assert self._database is not None, "bind comes first"
        tensors = {}
        for example in examples:
            for crc, *columns in self._database.execute(_READ, (example.key,)).fetchall():
                try:
                    tensors[example.key] = self._tensors(example, crc, columns)
                except (TypeError, ValueError):
                    self._database.execute("DELETE FROM outputs WHERE key = ?", (example.key,))
        return tensors

    def _tensors(self, example: Example, crc: int, columns: Sequence[bytes | None]) -> Tensors:
        """Raises TypeError or ValueError where they are not what was written."""
        if _checksum(columns) != crc:
            raise ValueError
        return {
            name: np.frombuffer(column, self.dtype).reshape(
                example.shape(name, self._layers.get(name, 1))
            )
            for name, column in zip(AXES, columns, strict=True)
            if column is not None
        }

    def _add(self, tensors: Mapping[bytes, Tensors]) -> None:
        """Keep examples' tensors, by key, but for those that another process has kept by now."""
        assert self._database is not None, "bind comes first"
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if not self._check_header(self._database):
                self._database.executemany("INSERT INTO header VALUES (?, ?)", self._header.items())
            for key, arrays in tensors.items():
                columns = [
                    arrays[name].astype(self.dtype).tobytes() if name in arrays else None
                    for name in AXES
                ]
                self._database.execute(_ADD, (key, _checksum(columns), *columns))


def _said(header: Mapping[str, str], name: str) -> str:
    """A text of a header, which somebody may have written to."""
    return messages.cut(str(header.get(name)).strip('"'), 40)


def _checksum(columns: Sequence[bytes | None]) -> int:
    crc = 0
    for column in columns:
        crc = zlib.crc32(column or b"", crc)
    return crc


def expected_bytes(
    lengths: Sequence[int] | NDArray[np.int64],
    *,
    labels: int,
    hidden: tuple[int, int] = (0, 0),
    attention: tuple[int, int] = (0, 0),
    itemsize: int = 4,
) -> int:
    """Bytes of a full cache, up to the few percent that a database leaves free.

    Args:
        lengths: Tokens of each distinct example.
        labels: Numbers in its logits.
        hidden: States kept (layers and the embedding output), and their width.
        attention: Layers whose scores are kept, and their heads.
        itemsize: Bytes of a number.
    """
    tokens = np.asarray(lengths, np.int64)
    numbers = labels * tokens.size + hidden[0] * hidden[1] * int(tokens.sum())
    numbers += attention[0] * attention[1] * int(np.square(tokens).sum())
    return numbers * itemsize + ROW_BYTES * tokens.size
