"""Output folders that appear whole or not at all."""

import contextlib
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from .errors import OutputError


@contextlib.contextmanager
def atomic_folder(path: Path, seal: str = "manifest.json") -> Generator[Path]:
    """Yield an empty folder to write into; on success its content becomes the content of `path`.

    The folder is written beside and renamed, so a new `path` appears whole. In an existing folder (it may be a mount
    point, which cannot be renamed) the entries are replaced one by one, and entries that were not written anew stay.
    seal: the file that makes the folder valid; it is removed first and published last, so that a reader never takes a
    mixture for a result. After any failure, an interrupt included, `path` is as it was.

    Raises:
        OutputError: the folder cannot be written (full disk, read-only, a file is in the way).
    """
    path = path.resolve()
    stage: Path | None = None
    published = False
    try:
        home = path if path.is_dir() else path.parent
        home.mkdir(parents=True, exist_ok=True)
        stage = home / f".{path.name}.{secrets.token_hex(4)}.partial"
        stage.mkdir()
        content = stage / "new"
        content.mkdir()
        yield content
        if path.is_dir():
            _publish(content, path, stage / "old", seal)
        else:
            content.rename(path)
        published = True
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        if stage is not None:
            _clear(stage, published)


def _publish(content: Path, path: Path, old: Path, seal: str) -> None:
    """Replace entries of `path` by those of `content`; what was there is kept in `old` and put back on failure."""
    names = sorted((entry.name for entry in content.iterdir()), key=lambda name: (name == seal, name))
    moved: list[tuple[Path, Path]] = []
    old.mkdir()
    try:
        for name in [seal, *names]:
            if (path / name).exists() and not (old / name).exists():
                moved.append((old / name, path / name))
                (path / name).rename(old / name)
        for name in names:
            moved.append((path / name, content / name))
            (content / name).rename(path / name)
    except BaseException:
        for here, there in reversed(moved):
            with contextlib.suppress(OSError):
                here.rename(there)
        raise


def _clear(stage: Path, published: bool) -> None:
    """Remove the stage; what could not be put back after a failure is the user's, and stays in it."""
    shutil.rmtree(stage / "new", ignore_errors=True)
    if published:
        shutil.rmtree(stage / "old", ignore_errors=True)
    for folder in (stage / "old", stage):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _explained(path: Path, error: OSError) -> OutputError:
    culprit = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
    reason = error.strerror or str(error)
    return OutputError(f"{path}: cannot be written: {reason}{culprit}; free space, change its permissions or choose another folder")
