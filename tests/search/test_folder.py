import errno
import os

import pytest
from fsspec.implementations.local import LocalFileSystem

from nni_s3d.errors import StoreError
from nni_s3d.search.folder import Folder


@pytest.fixture(params=["path", "url"])
def folder(request, tmp_path):
    """An empty folder, on disk and in memory."""
    return Folder(str(tmp_path / "s") if request.param == "path" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read(folder):
    assert folder.read_json("a/b.json") is None
    assert folder.read_bytes("a/b") is None
    folder.write_json("a/b.json", {"x": [1, 2.5, None]})
    assert folder.read_json("a/b.json") == {"x": [1, 2.5, None]}
    folder.write_json("a/b.json", {"y": 1})
    assert folder.read_json("a/b.json", "y") == {"y": 1}
    folder.write_bytes("a/b", b"\x00")
    assert folder.read_bytes("a/b") == b"\x00"


def test_what_is_removed_is_gone(folder):
    folder.write_json("a/b.json", {})
    assert folder.exists("a/b.json")
    folder.remove("a/b.json")
    folder.remove("a/b.json")
    assert not folder.exists("a/b.json")


def test_agreeing_is_all_or_nothing(folder):
    folder.write_json("b.json", {"c": 1})
    with pytest.raises(StoreError, match="c"):
        folder.agree({"a.json": {"c": 1}, "b.json": {"c": 2}})
    assert not folder.exists("a.json")


def test_some_settings_may_change(folder):
    folder.agree({"a.json": {"c": 1, "steps": 2}}, but=["steps"])
    folder.agree({"a.json": {"c": 1, "steps": 3}}, but=["steps"])
    assert folder.read_json("a.json") == {"c": 1, "steps": 3}


def test_files_and_folders_are_listed(folder):
    for path in ("a/x.json", "a/b/y.json", "a/a.json"):
        folder.write_json(path, {})
    assert (folder.files("a"), folder.folders("a"), folder.folders()) == (["a.json", "x.json"], ["b"], ["a"])
    with pytest.raises(StoreError, match="none: expected a place to read and write, got FileNotFoundError"):
        folder.files("none")


def test_no_temporary_file_is_left(tmp_path):
    Folder(str(tmp_path)).write_json("a/b.json", {})
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    folder.write_bytes("a", b"before")

    def full(self, path, content, *more, **options):
        with open(path, "wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalFileSystem, "pipe_file", full)
    with pytest.raises(StoreError, match=r"a: expected a place to read and write, got OSError: .*No space left"):
        folder.write_bytes("a", b"after")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before"}


def test_what_another_program_takes_for_left_behind_is_written_again(tmp_path, monkeypatch):
    folder, pipe, removed = Folder(str(tmp_path)), LocalFileSystem.pipe_file, []

    def pipe_and_lose(fs, path, content, **options):
        pipe(fs, path, content, **options)
        if not removed:
            removed.append(folder.remove_temporary())

    monkeypatch.setattr(LocalFileSystem, "pipe_file", pipe_and_lose)
    folder.write_bytes("a", b"1")
    assert removed == [1]
    assert folder.files() == ["a"]


def test_what_a_killed_program_was_writing_is_removed(folder):
    for name in ("x.json", "x.json.0.tmp", "y.tmp"):
        folder.write_json(f"a/{name}", {})
    assert folder.remove_temporary("a", age=60) == 0
    assert folder.remove_temporary("a") == 2
    assert folder.files("a") == ["x.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "expected a mapping with key, next, got None"),
        ("[1]", r"expected a mapping with key, next, got \[1\]"),
        ("3", "expected a mapping with key, next, got 3"),
        ('"key"', "expected a mapping with key, next, got key"),
        ('{"key": 1}', "expected a mapping with key, next, got {'key': 1}"),
        ("{", r"expected a file that this package wrote, got one that cannot be read \(JSONDecodeError\)"),
    ],
)
def test_json_of_another_form_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StoreError, match=rf"a\.json: {message}"):
        Folder(str(tmp_path)).read_json("a.json", "key", "next")


def test_a_directory_in_the_place_of_a_file_is_refused_and_untouched(tmp_path):
    (tmp_path / "a.json").mkdir()
    folder = Folder(str(tmp_path))
    for access in (folder.read_json, lambda path: folder.write_json(path, {})):
        with pytest.raises(StoreError, match=r"a\.json: expected a place to read and write, got IsADirectoryError"):
            access("a.json")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.json"]


@pytest.mark.parametrize("url", ["foo://bar", "zip://none.zip"])
def test_a_place_that_fsspec_cannot_open_is_named(url):
    with pytest.raises(StoreError, match=f"^{url}: expected a place to read and write, got"):
        Folder(url)


@pytest.mark.parametrize("path", ["../x.json", "a/../../x.json", "/etc/x.json", ".."])
def test_no_path_leads_out(tmp_path, path):
    (tmp_path / "x.json").write_text("{}")
    folder = Folder(str(tmp_path / "s"))
    for access in (folder.read_json, folder.remove, folder.files, lambda path: folder.write_json(path, {})):
        with pytest.raises(StoreError, match=r"s: expected a path inside, got '.*"):
            access(path)
    assert (tmp_path / "x.json").read_text() == "{}"
