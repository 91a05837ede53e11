from __future__ import annotations

import pyarrow
import pyarrow.parquet
import pytest


@pytest.fixture
def write(tmp_path):
    """Write a file: text, bytes, or columns into Parquet or Arrow."""

    def _write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict) and name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.table(content), path)
        elif isinstance(content, dict):
            columns = pyarrow.table(content)
            with pyarrow.ipc.new_file(str(path), columns.schema) as file:
                file.write_table(columns)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write
