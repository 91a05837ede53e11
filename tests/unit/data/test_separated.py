"""Columns that a separator divides: quotes, widths, lines."""

from helpers.data import cells, refused


def test_quoted_csv_with_line_breaks_commas_and_quotes(write):
    path = write("a.csv", 'text,label\n"one, two\nthree ""four""",x\nplain,y\n')
    assert cells(path)["text"] == ['one, two\nthree "four"', "plain"]


def test_texts_longer_than_the_csv_modules_limit(write):
    long = "word " * 50_000
    assert cells(write("a.csv", f"text,label\n{long},x\nb,y\n"))["text"][0] == long


def test_tsv_has_no_quoting_unless_asked(write):
    path = write("a.tsv", 'text\tlabel\n"quoted\t1\nplain "\t0\n')
    assert cells(path)["text"] == ['"quoted', 'plain "']
    path = write("b.tsv", 'text\tlabel\n"a\tb"\t1\nplain\t0\n')
    assert cells(path, quoting="standard")["text"] == ["a\tb", "plain"]


def test_unusual_line_separators_stay_in_the_text(write):
    path = write("a.tsv", "text\tlabel\none\u2028two\u0085three\t1\nfour\t0\n")
    assert cells(path)["text"] == ["one\u2028two\u0085three", "four"]


def test_without_a_header_rows_may_have_more_columns(write):
    columns = cells(write("a.tsv", "4\ta\tb\n0\tc\td\te\tf\n"), header=False)
    assert columns["3"] == ["b", "d"] and columns["5"] == [None, "f"]


def test_rows_of_another_width(write):
    for row in ("a", "a,b,c"):
        path = write("a.csv", f'text,label\n"x\ny",1\n{row}\n')
        assert "--quoting" in refused(path, str(path), "line 4", "'text', 'label'")
    path = write("a.tsv", "text\tlabel\na\t1\nb\tc\t1\n")
    refused(path, str(path), "line 3", "3 columns", "has 2")


def test_a_row_more_or_less_is_not_shifted(write):
    """pandas fills a short row, and takes the first column for an index if all rows are long."""
    refused(write("a.csv", "text,label\na,1\nb\n"), "a.csv, line 3", "1 column,", "has 2")
    refused(write("b.csv", "text,label\na,1,2\nb,x,2\n"), "b.csv, line 2", "3 columns", "has 2")


def test_broken_quotes(write):
    path = write("a.csv", 'text,label\na,1\n"b" c,0\n')
    refused(path, str(path), "line 3", "--quoting none")
    refused(write("a.csv", 'text,label\na,1\n"b,0\nc,1\n'), "line 3", "unexpected end")


def test_a_header_alone(write):
    path = write("a.csv", "text,label\n")
    refused(path, str(path), "only one line", "header")


def test_a_repeated_column_matters_if_it_is_asked_for(write):
    path = write("a.csv", "text,id,id\na,1,2\n")
    assert cells(path, "text") == {"text": ["a"]}
    refused(path, "'id' 2 times", column="id")
