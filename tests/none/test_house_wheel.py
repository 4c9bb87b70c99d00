"""A built wheel holds the whole package and works outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from house import CODE, LINKED, ROOT, files


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy without the links, as on a system whose checkout has none: pyproject.toml alone must do."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in CODE:
        links = LINKED if folder == "billhook" else ()
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", *links))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", work, source, cwd=work)
    return next(work.glob("billhook-*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it and nothing else."""
    target = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel, cwd=target)
    return target


def test_holds_every_file_and_nothing_generic(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if not n.partition("/")[0].endswith(".dist-info")}
    expected: set[str] = set()
    for folder in CODE:
        for path in files(ROOT / folder, ""):
            if path.suffix != ".pyc":
                inside = path.relative_to(ROOT).as_posix()
                expected.add(inside if folder == "billhook" else f"billhook/{inside}")
    assert names == expected


def test_works_outside_the_checkout(site: Path, tmp_path: Path) -> None:
    code = "import billhook, billhook.ir.target as t; print(billhook.__file__); print(t.__file__); print(billhook.Target())"
    shown = run(sys.executable, "-c", code, cwd=tmp_path, path=site).splitlines()
    assert shown[0] == str(site / "billhook" / "__init__.py")
    assert shown[1] == str(site / "billhook" / "ir" / "target.py")
    assert shown[2].startswith("llvm:")


def test_the_command_is_installed(site: Path, tmp_path: Path) -> None:
    shown = run(sys.executable, site / "bin" / "billhook", "--help", cwd=tmp_path, path=site)
    assert "compile" in shown
    assert "doctor" in shown


def test_the_report_finds_its_templates(site: Path, tmp_path: Path) -> None:
    support = ROOT / "tests" / "support"
    code = f"import sys; sys.path.append({str(support)!r}); from synthetic_record import synthetic_record as s; "
    code += "from billhook.report import render; from pathlib import Path; render(s(), Path('report.html'))"
    run(sys.executable, "-c", code, cwd=tmp_path, path=site)
    assert "Budget met" in (tmp_path / "report.html").read_text()
