import errno
import os
from pathlib import Path

import pytest

from billhook.ir.atomic import atomic_folder
from billhook.ir.errors import OutputError


def write(folder: Path, **files: str) -> None:
    with atomic_folder(folder) as stage:
        for name, text in files.items():
            (stage / name.replace("_", ".")).write_text(text)


def interrupted(folder: Path, interrupt: type[BaseException]) -> None:
    with atomic_folder(folder) as stage:
        (stage / "manifest.json").write_text("new")
        raise interrupt


def content(folder: Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in folder.iterdir()}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(self: Path, target: Path) -> Path:
        if Path(target).name == "manifest.json" and self.parent.name == "new":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        os.rename(self, target)  # noqa: PTH104
        return target

    monkeypatch.setattr(Path, "rename", rename)


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "out") as stage:
        (stage / "manifest.json").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert content(tmp_path / "deep" / "out") == {"manifest.json": "1"}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_an_existing_folder_keeps_what_is_not_written_anew(tmp_path: Path) -> None:
    (tmp_path / "out" / "lib").mkdir(parents=True)
    (tmp_path / "out" / "lib" / "old.so").write_text("old")
    (tmp_path / "out" / "notes_txt").write_text("mine")
    with atomic_folder(tmp_path / "out") as stage:
        (stage / "lib").mkdir()
        (stage / "lib" / "new.so").write_text("new")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["lib", "notes_txt"]
    assert content(tmp_path / "out" / "lib") == {"new.so": "new"}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupt_leaves_everything_as_it_was(tmp_path: Path, interrupt: type[BaseException], exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        write(out, manifest_json="old")
    with pytest.raises(interrupt):
        interrupted(out, interrupt)
    assert out.exists() == exists
    assert not exists or content(out) == {"manifest.json": "old"}
    assert len(list(tmp_path.iterdir())) == exists


def test_a_full_disk_while_publishing_puts_everything_back(tmp_path: Path, full_disk: None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("old a")
    (out / "manifest.json").write_text("old")
    with pytest.raises(OutputError, match=r"out: cannot be written: No space left on device .*free space"):
        write(out, a_txt="new a", b_txt="new b", manifest_json="new")
    assert content(out) == {"a.txt": "old a", "manifest.json": "old"}


def test_what_cannot_be_put_back_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("old a")

    def rename(self: Path, target: Path) -> Path:
        if Path(target).parent == out:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        os.rename(self, target)  # noqa: PTH104
        return target

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="Input/output error"):
        write(out, a_txt="new a")
    assert [path.read_text() for path in out.rglob("a.txt")] == ["old a"]


def test_a_full_disk_while_writing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"), atomic_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), atomic_folder(tmp_path / "file" / "out"):
        pytest.fail("must not be entered")


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        write(tmp_path / "file", a_txt="1")
    assert content(tmp_path) == {"file": "x"}
