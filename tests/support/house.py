"""The checkout as data: its root, its configuration, its Python files."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = ("billhook", "ir", "passes", "costmodel", "codegen")
LINKED = CODE[1:]


def configuration() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files(folder: Path, suffix: str = ".py") -> Iterator[Path]:
    """Files below a folder (none if it is not there) in a stable order, without the links of billhook/ and without caches."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.is_symlink() or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from files(path, suffix)
        elif path.name.endswith(suffix):
            yield path


def module_name(path: Path) -> str:
    """Name of the module or package in a file or folder of the checkout: ir/target.py is billhook.ir.target."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "billhook" else ("billhook", *parts))
