"""The front doors are light: nothing heavy is loaded before it is used."""

import subprocess
import sys

import pytest

import billhook

# pydantic is not among them: typer itself loads it.
HEAVY = ("torch", "tvm", "numpy", "scipy", "networkx", "jinja2", "accelerate", "sklearn")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running the code."""
    report = "; import sys; sys.stderr.write('|'.join({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(done.stderr.split("|"))


def test_importing_billhook_loads_nothing_heavy() -> None:
    assert loaded_by("import billhook").isdisjoint((*HEAVY, "rich", "typer"))


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(f"from billhook.cli import main; main({arguments})").isdisjoint(HEAVY)


def test_report_needs_no_torch() -> None:
    assert loaded_by("import billhook.report").isdisjoint({"torch", "tvm", "numpy"})


@pytest.mark.parametrize("name", billhook.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(billhook, name) is not None
    assert name in dir(billhook)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'billhook' has no attribute 'prun'"):
        _ = billhook.prun  # pyright: ignore[reportAttributeAccessIssue]
