"""Tasks whose model reads text: what they share, whatever is learnt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from sentei.data.formats import HALF, Format, Quoting
from sentei.messages import short
from sentei.tasks.task import E, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.data.table import Table


class TextTask(Task[E]):
    """A model that reads the tokens of files of text."""

    max_length: int | None = Field(None, ge=4)
    """Tokens kept of a text or pair, in a window of a context, or in a block of running text
    [default: 128; answers 384; running text and summaries 512; or the model's limit]."""

    encoding: str = "utf-8"
    """Encoding of the data files."""

    delimiter: str | None = None
    """Separator of columns [default: comma in .csv, tab in .tsv]."""

    processor_name = "tokenizer"

    usual_length: ClassVar[int] = 128
    """Tokens of an example, where nobody says."""

    pads: ClassVar[bool] = False
    """Whether the texts of a batch are padded to one length."""

    @model_validator(mode="after")
    def _options_are_text(self) -> Self:
        """A shell hands over what is no UTF-8 as halves of characters."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, str) and HALF.search(value):
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is {short(value)}: write it in UTF-8")
        return self

    def format(self) -> Format:
        """How its files are written."""
        return Format(encoding=self.encoding, delimiter=self.delimiter)

    def has_evaluation(self, path: Path) -> bool:
        """Whether training data bring a split to evaluate on."""
        from sentei.data import sources

        return bool(sources.split_names(path).intersection(self.eval_splits))

    def read(self, path: Path, splits: Sequence[str]) -> E:
        """The examples of a source; of several splits the first that it has.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        from sentei.data import sources

        return self.from_table(sources.read(path, self.format(), splits))

    def from_dataset(self, dataset: Any, name: str) -> E:
        """The examples of a ``datasets.Dataset``."""
        from sentei.data import sources

        return self.from_table(sources.from_dataset(dataset, name))

    @abstractmethod
    def from_table(self, table: Table) -> E:
        """The examples of a table.

        Raises:
            ValueError: They cannot be used; names the row.
        """

    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """The model's tokenizer.

        Raises:
            OSError, ValueError, KeyError, ImportError: It cannot be loaded, or has no token to pad
                with.
        """
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        return self.padded(tokenizer)

    def padded(self, tokenizer: Any) -> Any:
        """A tokenizer that can make texts of one length, where batches are padded.

        Raises:
            ValueError: It has no token to do it with.
        """
        if self.pads and tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError("the tokenizer has neither a padding token nor an end token")
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def same_input(self, ours: Any, theirs: Any) -> bool:
        """Whether two tokenizers know the same tokens."""
        same: bool = ours.get_vocab() == theirs.get_vocab()
        return same

    def length(self, tokenizer: Any) -> int:
        """Tokens of an example at most."""
        return self.max_length or min(self.usual_length, tokenizer.model_max_length)

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model with fewer positions or tokens than the texts have.

        Raises:
            ValueError: It has.
        """
        from sentei.data.features import check_inputs

        check_inputs(features, model)

    def truncated(self, features: Features, processor: Any) -> float | None:
        """Fraction of the texts cut at the length limit."""
        lengths = features.lengths
        return None if lengths is None else float((lengths >= self.length(processor)).mean())


class TableTask(TextTask[E]):
    """A model that reads texts out of tables."""

    quoting: Quoting = "auto"
    """Quotes in separated files: standard, none, or auto (standard in .csv, none in .tsv)."""

    header: bool = True
    """Whether the first line names the columns; without, they are called 1, 2, ..."""

    def format(self) -> Format:
        """How its tables are written."""
        return Format(
            encoding=self.encoding,
            delimiter=self.delimiter,
            quoting=self.quoting,
            header=self.header,
        )


class TextColumn(TableTask[E]):
    """A model that reads the text of one column."""

    text_column: str | None = None
    """Column of the text; for summaries, of what is summed up."""
