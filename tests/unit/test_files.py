"""Files and folders that are there whole, or as they were."""

import pytest

from sentei.files import replacing, write_text


def test_a_failure_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(KeyError), replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with replacing(tmp_path / "out") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_stays_itself(tmp_path):
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    with replacing(tmp_path / "out") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert (tmp_path / "out").stat().st_ino == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
