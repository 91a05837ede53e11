"""What a source holds, or why it is refused."""

from __future__ import annotations

import pytest

from sentei.data.formats import Format
from sentei.data.sources import read


def table(source, splits=("train",), **form):
    return read(source, Format(**form), splits)


def cells(source, *names, **options):
    """The cells of the columns that are named, or of all."""
    whole = table(source, **options)
    return {name: whole.column(name, "--column") for name in names or whole.columns}


def refused(source, *parts, column=None, **options):
    """What reading says, or asking for a column then, which must hold all the parts."""
    with pytest.raises(ValueError) as caught:
        whole = table(source, **options)
        if column:
            whole.column(column, f"--{column}-column")
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    return message


def place(source, row):
    """What an error in a row begins with."""
    with pytest.raises(ValueError) as caught:
        table(source).fail(row, "so it is")
    assert str(caught.value).endswith(": so it is")
    return str(caught.value).removesuffix(": so it is")
