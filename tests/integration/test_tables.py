"""The tables of the pages say what benchmarks/results say."""

from __future__ import annotations

import pytest
from benchmarks import tables

PAGES = tables.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(tables.ROOT)))
def test_pages_have_the_tables_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert tables.fill(text) == text, "run: python -m benchmarks.tables"


def test_results_have_their_tables():
    text = (tables.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(tables.BLOCK.findall(text)) >= 7
    assert "| `platon` | 85.2 | 83.5 | 79.1 | 89.9 | 84.4 |" in text


def test_a_table_that_there_is_not():
    with pytest.raises(ValueError, match="did you mean 'methods'"):
        tables.fill("<!-- table: methds -->\n<!-- end -->")
