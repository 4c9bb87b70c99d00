"""The three descriptions of the layout (tree, links, pyproject.toml) say the same, and files stay small."""

import ast
import fnmatch
from pathlib import Path

import pytest
from house import CODE, LINKED, ROOT, configuration, files, module_name

FILE_LINES = 400
FUNCTION_LINES = 40
PYTHON = [path for folder in (*CODE, "tests", "tools", "examples", "benchmarks") for path in files(ROOT / folder)]


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_packages_are_those_of_the_tree() -> None:
    tree = {module_name(path) for folder in CODE for path in files(ROOT / folder) if path.name == "__init__.py"}
    assert set(configuration()["tool"]["setuptools"]["packages"]) == tree


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for folder in CODE for path in files(ROOT / folder)}
    assert [label(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_package_folders_and_links_agree() -> None:
    mapping = configuration()["tool"]["setuptools"]["package-dir"]
    assert mapping == {"billhook": "billhook"} | {f"billhook.{name}": name for name in LINKED}
    for name in LINKED:
        link = ROOT / "billhook" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_data_files_are_packaged() -> None:
    settings = configuration()["tool"]["setuptools"]["package-data"]
    for folder in CODE:
        for path in files(ROOT / folder, ""):
            if path.suffix in (".py", ".pyc"):
                continue
            owner = next(parent for parent in path.parents if (parent / "__init__.py").exists())
            patterns = settings.get(module_name(owner), [])
            inside = path.relative_to(owner).as_posix()
            assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns), f"{label(path)} would not be installed"


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_types_are_checked_everywhere(path: Path) -> None:
    patterns = configuration()["tool"]["pyright"]["include"]
    inside = path.relative_to(ROOT)
    covered = (inside.match(p) if "*" in p else inside.is_relative_to(p) for p in patterns)
    assert any(covered), "add its folder to tool.pyright.include: pyright does not follow links and says nothing"


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: lines(f) for f in functions if lines(f) > FUNCTION_LINES}
    assert long == {}


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring: explaining is not penalised."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def test_no_path_of_a_machine_is_written_down() -> None:
    needles = ("/" + "work/", "/" + "root/")
    texts = [p for s in (".py", ".md", ".toml", ".sh", ".j2") for f in (*CODE, "tests", "docs", "tools") for p in files(ROOT / f, s)]
    for path in (*texts, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "pyproject.toml"):
        text = path.read_text(encoding="utf-8")
        assert not [needle for needle in needles if needle in text], label(path)
