"""Whatever a source is, the same table comes out, and an error names file and row."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from helpers.data import cells, place, refused, table
from sentei.data import hub
from sentei.data.sources import from_dataset, load, split_names

ROWS = {"text": ["good", "bad", "fine"], "label": ["pos", "neg", "pos"]}
CSV = "text,label\ngood,pos\nbad,neg\nfine,pos\n"
TSV = CSV.replace(",", "\t")
JSONL = "".join(
    json.dumps({"text": text, "label": label}) + "\n"
    for text, label in zip(ROWS["text"], ROWS["label"], strict=True)
)


# ------------------------------------------------------------------------- kinds of file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.tsv", TSV),
        ("a.jsonl", JSONL),
        ("a.json", "[" + ",".join(JSONL.splitlines()) + "]"),
        ("a.parquet", ROWS),
        ("a.arrow", ROWS),
        ("a.csv.gz", gzip.compress(CSV.encode())),
        ("a.CSV.GZ", gzip.compress(CSV.replace("\n", "\r\n").encode("utf-8-sig"))),
        ("a.tsv.bz2", bz2.compress(TSV.encode())),
        ("a.jsonl.xz", lzma.compress(JSONL.encode())),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("a.") else "",
)
def test_every_kind_of_file_gives_the_same_table(write, name, content):
    path = write(name, content)
    assert cells(path) == ROWS
    assert table(path).name == str(path)
    assert split_names(path) == set()


def test_arrow_files_of_the_library_are_streams(tmp_path):
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "saved")
    assert cells(tmp_path / "saved" / "data-00000-of-00001.arrow") == ROWS
    assert cells(tmp_path / "saved") == ROWS


ODD = ["NA", "None", "null", "nan", "N/A", "007", "1e3", "True", "2020-01-02", "-", "1,5"]
"""Texts that readers of tables like to take for something else."""


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.arrow"])
def test_texts_stay_what_they_are(write, name):
    columns = {"text": ODD, "label": ODD[::-1]}
    rows = [*zip(columns["text"], columns["label"], strict=True)]
    content = {
        "a.csv": "text,label\n" + "".join(f'"{a}","{b}"\n' for a, b in rows),
        "a.tsv": "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows),
        "a.jsonl": "\n".join(json.dumps({"text": a, "label": b}) for a, b in rows),
    }
    assert cells(write(name, content.get(name, columns))) == columns


# ------------------------------------------------------------------------- declared classes


CLASSES = datasets.Features(
    text=datasets.Value("string"),
    label=datasets.ClassLabel(names=["no", "yes"]),
    tags=datasets.List(datasets.ClassLabel(names=["O", "B-x"])),
)
LABELLED = {"text": ["a", "b", "c"], "label": [1, 0, -1], "tags": [[0, 1], [], [1]]}


@pytest.mark.parametrize("kind", ["dataset", "parquet", "arrow"])
def test_declared_classes_come_along(tmp_path, kind):
    dataset = datasets.Dataset.from_dict(LABELLED, features=CLASSES)
    path = tmp_path / "a.parquet"
    if kind == "parquet":
        dataset.to_parquet(path)
    elif kind == "arrow":
        dataset.save_to_disk(tmp_path)
        path = tmp_path / "data-00000-of-00001.arrow"
    found = from_dataset(dataset, "it") if kind == "dataset" else table(path)
    assert found.classes("label") == ("no", "yes") and found.classes("text") is None
    assert found.column("label", "") == [1, 0, -1]
    assert found.labels("label", "") == ["yes", "no", None]
    assert found.labels("tags", "") == [["O", "B-x"], [], ["B-x"]]
    assert found.labels("text", "") == ["a", "b", "c"]


@pytest.mark.parametrize("column", ["label", "tags"])
def test_numbers_that_no_class_has(tmp_path, column):
    dataset = datasets.Dataset.from_dict(LABELLED, features=CLASSES)
    cells = {"label": [1, 0, 7], "tags": [[0, 1], [], [1, 7]]}[column]
    schema = dataset.data.table.schema
    columns = {**LABELLED, column: cells}
    changed = pyarrow.table([columns[name] for name in schema.names], schema=schema)
    pyarrow.parquet.write_table(changed, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 3: the label .*7.* none of the 2"):
        table(tmp_path / "a.parquet").labels(column, "")


def test_files_with_other_classes_are_not_mixed(tmp_path):
    for name, names in (("a", ["no", "yes"]), ("b", ["yes", "no"])):
        features = datasets.Features(label=datasets.ClassLabel(names=names))
        dataset = datasets.Dataset.from_dict({"label": [0, 1]}, features=features)
        dataset.to_parquet(tmp_path / f"{name}.parquet")
    found = table(tmp_path / "*.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet declares other classes .*'label'.*a\.parq"):
        found.labels("label", "")


# ------------------------------------------------------------------------- several files


def test_several_files_are_one_table(write, tmp_path):
    paths = [
        write("b/1.csv", CSV),
        write("b/2.csv", "label,text\npos,great\n"),  # columns are matched by name
    ]
    texts = [*ROWS["text"], "great"]
    for source in (paths, tmp_path / "b" / "*.csv", str(tmp_path / "b" / "?.csv"), tmp_path / "b"):
        assert cells(source, "text") == {"text": texts}
    assert table(tmp_path / "b").name == f"{tmp_path / 'b'}, 2 files"
    assert cells([paths[1], write("c.parquet", ROWS)], "label") == {
        "label": ["pos", *ROWS["label"]]
    }
    assert cells(tmp_path / "**" / "2.csv", "text") == {"text": ["great"]}


def test_a_row_of_several_files_is_named_by_its_own(write, tmp_path):
    first = write("a.csv", 'text,label\n"two\nlines",x\nb,y\n')
    second = write("b.csv.gz", gzip.compress(b"text,label\n\nc,x\n"))
    third, fourth = write("c.parquet", ROWS), write("d.json", '[{"text": "d"}]')
    several = [first, second, third, fourth]
    places = [place(several, row) for row in (0, 1, 2, 4, 6)]
    assert places == [
        f"{first}, line 2",
        f"{first}, line 4",
        f"{second}, line 3",
        f"{third}, row 2",
        f"{fourth}, item 1",
    ]
    refused(
        [first, write("e.csv", "txt,label\na,b\n")],
        "e.csv has no column 'text'; did you",
        column="text",
    )
    refused([first, write("f.csv", "text,label\na\n")], "f.csv, line 2")


def test_a_folder_is_divided_by_the_names_in_it(write, tmp_path):
    write("data/train.csv", CSV)
    write("data/dev.csv", "text,label\nd,x\n")
    write("data/test.csv", "text,label\nt,x\n")
    write("data/README.md", "about")
    write("data/.hidden/train.csv", "no")
    assert split_names(tmp_path / "data") == {"train", "validation", "test"}
    assert cells(tmp_path / "data") == ROWS
    assert cells(tmp_path / "data", "text", splits=("dev", "validation")) == {"text": ["d"]}
    assert table(tmp_path / "data", ("test",)).name == f"{tmp_path / 'data'}, test split"
    refused(tmp_path / "data", "has the splits", "'validation'", "none of 'val'", splits=("val",))


def test_a_folder_as_the_hub_keeps_it(write, tmp_path):
    write("own/data/train-00000-of-00002.parquet", {"text": ["a"]})
    write("own/data/train-00001-of-00002.parquet", {"text": ["b"]})
    write("own/data/validation-00000-of-00001.parquet", {"text": ["c"]})
    write("own/dataset_infos.json", "{}")
    assert cells(tmp_path / "own") == {"text": ["a", "b"]}
    assert cells(tmp_path / "own", splits=("validation",)) == {"text": ["c"]}


def test_folders_for_splits(write, tmp_path):
    write("own/train/1.jsonl", JSONL)
    write("own/eval/1.jsonl", '{"text": "e", "label": "pos"}')
    assert split_names(tmp_path / "own") == {"train", "test"}
    assert cells(tmp_path / "own") == ROWS


def test_folders_that_are_not_clear(write, tmp_path):
    write("own/train.csv", CSV)
    write("own/more.csv", CSV)
    refused(tmp_path / "own", "more.csv", "no split")
    write("own/more.tsv", TSV)
    refused(tmp_path / "own", ".csv, .tsv", "*.csv'")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.md").touch()
    refused(tmp_path / "empty", "without data", "save_to_disk", ".parquet")
    refused(tmp_path / "*.nothing", "no file is called like that")


# ------------------------------------------------------------------------------ damage


def test_missing_unknown_and_empty_files(tmp_path, write):
    refused(tmp_path / "none.csv", f"{tmp_path / 'none.csv'} does not exist")
    known = ".csv, .tsv, .txt, .jsonl, .ndjson, .json, .parquet, .arrow"
    refused(write("a.xlsx", "x"), str(tmp_path), "'.xlsx'", known, ".gz, .bz2, .zst, .xz")
    for name in ("a.csv", "a.tsv", "a.json", "a.jsonl"):
        refused(write(name, ""), str(tmp_path / name), "is empty")
        refused(write(name, "\ufeff\n"), "is empty")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "none made by save_to_disk")


def test_damaged_files(write, tmp_path):
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_bytes(b"PAR1 and not much more")
        refused(tmp_path / name, str(tmp_path / name), "damaged")
    refused(write("a.parquet.gz", gzip.compress(b"")), "'.gz'", ".parquet")
    refused(write("a.gz", gzip.compress(b"")), "'.gz'")
    refused(write("e.parquet", {"text": pyarrow.array([], "string")}), "e.parquet is empty")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}', b"\0" * 50]
)
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_damaged_datasets(tmp_path, name, content):
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict(ROWS).save_to_disk(saved)
    (saved / name).write_bytes(content)
    try:
        assert cells(saved) == ROWS  # what describes the data may be missing
    except ValueError as error:
        assert str(error).startswith(f"{saved}: cannot be read (") and len(str(error)) < 1000


def test_text_in_columns_that_is_none(tmp_path):
    bad = pyarrow.py_buffer(b"\xff\xfe")
    places = pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0")
    column = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, places, bad])
    pyarrow.parquet.write_table(pyarrow.table([column], ["text"]), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "a.parquet: cannot be read", "its column 'text'", column="text")


def test_folders_called_like_columns_add_none(write):
    assert cells(write("label=1/a.parquet", ROWS)) == ROWS


# ---------------------------------------------------------------------------- datasets


def test_datasets_for_what_is_not_text(write, tmp_path):
    write("b/1.parquet", ROWS)
    write("b/2.parquet", ROWS)
    dataset, name = load(tmp_path / "b", ("train",))
    assert len(dataset) == 6 and "2 files" in name
    datasets.DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(tmp_path / "saved")
    dataset, name = load(tmp_path / "saved", ("test",))
    assert len(dataset) == 1 and name == f"{tmp_path / 'saved'}, test split"
    with pytest.raises(ValueError, match=r"a\.csv holds text; \.parquet and \.arrow are read here"):
        load(write("a.csv", CSV), ("train",))


def test_reading_writes_nothing(write, tmp_path):
    """Neither into the library's cache nor beside the file."""
    for name, content in (("a.csv.gz", gzip.compress(CSV.encode())), ("a.parquet", ROWS)):
        write(f"data/{name}", content)
    write("data/a.arrow", ROWS)
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from sentei.data.formats import Format; from sentei.data.sources import read\n"
        "for name in sys.argv[1:]: print(len(read(name, Format(), ()).column('text', '')))"
    )
    names = [str(path) for path in sorted((tmp_path / "data").iterdir())]
    environment = os.environ | {"HOME": str(home), "HF_HOME": str(home / "hf")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["3", "3", "3"], done.stderr
    assert [*home.rglob("*")] == []
    assert len([*(tmp_path / "data").iterdir()]) == 3


# -------------------------------------------------------------------------------- hub


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("user/name", ("user/name", None)),
        ("nyu-mll/glue:sst2", ("nyu-mll/glue", "sst2")),
        ("user/name.v2", ("user/name.v2", None)),
        ("data/train.csv", None),
        ("data/train.jsonl.gz", None),
        ("name", None),
        ("a/b/c", None),
        ("/user/name", None),
        ("../name", None),
    ],
)
def test_names_of_the_hub(source, parsed):
    assert hub.parse(source) == parsed


def test_what_is_here_is_not_looked_for_on_the_hub(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("user/name/a.csv", CSV)
    assert hub.parse("user/name") is None
    assert cells("user/name") == ROWS


def test_a_dataset_of_the_hub_by_name(monkeypatch):
    calls = []

    def load_dataset(path, config):
        calls.append((path, config))
        whole = datasets.Dataset.from_dict(ROWS)
        return datasets.DatasetDict(train=whole, test=whole.select([1]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert cells("user/name") == ROWS
    assert cells("user/name:own", splits=("validation", "test"))["text"] == ["bad"]
    assert split_names("user/name") == {"train", "test"}
    assert calls == [("user/name", None), ("user/name", "own"), ("user/name", None)]
    refused("user/name", "user/name has the splits 'train', 'test'", splits=("dev",))
    [(test, name)] = hub.load("user/name", "own", ["test"])
    assert (len(test), name) == (1, "user/name (own), test split")


@pytest.mark.parametrize("source", ["user/name", "user/name:own"])
def test_the_hub_out_of_reach_is_one_message(tmp_path, source):
    code = (
        "import sys; from sentei.data.formats import Format; from sentei.data.sources import read\n"
        "try: read(sys.argv[1], Format(), ())\n"
        "except ValueError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code, source],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    message = done.stdout
    assert len(message.splitlines()) == 1, done.stderr
    for part in (f"{source} is no file or folder here", "hub cannot be reached", "--train FILE"):
        assert part in message
