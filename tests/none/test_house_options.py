"""Options: what they mean, and what a wrong one is told."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.ir.errors import OptionError
from billhook.options import (
    DTYPES,
    Budget,
    InputSpec,
    Reference,
    call,
    default_database,
    existing,
    parse_budget,
    parse_input,
    parse_reference,
    resolve,
    result_folder,
)


@given(st.builds(InputSpec, st.lists(st.integers(1, 9999), min_size=1, max_size=6).map(tuple), st.sampled_from(DTYPES)))
def test_inputs_round_trip(spec: InputSpec) -> None:
    assert parse_input(str(spec)) == spec


def test_an_input_is_float32_unless_said() -> None:
    assert parse_input("1x3x224x224") == InputSpec((1, 3, 224, 224), "float32")
    assert parse_input(" int64:1X128 ") == InputSpec((1, 128), "int64")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,3,224,224", "did you mean 1x3x224x224"),
        ("1x3x", "positive sizes joined by x.*did you mean 1x3"),
        ("0x3", "positive sizes"),
        ("", "positive sizes"),
        ("flaot32:1x3", "unknown element type 'flaot32'; did you mean float32"),
        ("complex64:1", "known: float32"),
    ],
)
def test_wrong_inputs(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_input(text)


@pytest.mark.parametrize(
    ("value", "budget"),
    [
        ("50%", Budget(0.5, "share")),
        ("0.5", Budget(0.5, "share")),
        (0.5, Budget(0.5, "share")),
        (1, Budget(1.0, "share")),
        ("12.5%", Budget(0.125, "share")),
        ("12ms", Budget(0.012, "s")),
        ("12 ms", Budget(0.012, "s")),
        ("800us", Budget(0.0008, "s")),
        ("800µs", Budget(0.0008, "s")),
        ("2s", Budget(2.0, "s")),
    ],
)
def test_budgets(value: str | float, budget: Budget) -> None:
    parsed = parse_budget(value)
    assert parsed.unit == budget.unit
    assert parsed.amount == pytest.approx(budget.amount)
    assert parse_budget(str(parsed)).amount == pytest.approx(budget.amount)


def test_a_budget_in_seconds() -> None:
    assert parse_budget("25%").seconds(0.04) == pytest.approx(0.01)
    assert parse_budget("3ms").seconds(0.04) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("12", "did you mean 12ms or 12%"),
        (12, "did you mean 12ms or 12%"),
        ("150%", "between 0 and 100%"),
        ("0", "greater than zero"),
        ("0ms", "greater than zero"),
        ("-5ms", "write a share"),
        ("fast", "write a share"),
        ("12msec", "unknown unit 'msec'; did you mean ms"),
        ("12fps", "unknown unit 'fps'"),
        ("nan", "write a share"),
        ("", "write a share"),
    ],
)
def test_wrong_budgets(value: str | float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_budget(value)


def test_references() -> None:
    assert parse_reference("a.b:c.d", "MODEL") == Reference("a.b", "c.d")
    with pytest.raises(OptionError, match=r"did you mean models\.resnet:build\?"):
        parse_reference("./models/resnet.py:build", "MODEL")
    with pytest.raises(OptionError, match=r"write package\.module:attribute; did you mean mymodel:NAME"):
        parse_reference("mymodel", "MODEL")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "billhook_test_user_module"
    (tmp_path / f"{name}.py").write_text(
        "def build():\n    return 7\n\ndef broken():\n    raise RuntimeError('no weights\\nhere')\n\nvalue = 3\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("import billhook_test_absent\n")
    (tmp_path / f"{name}_raising.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for suffix in ("", "_broken", "_raising"):
        sys.modules.pop(name + suffix, None)
    return name


def test_resolve_and_call(module: str) -> None:
    assert call(Reference(module, "build"), "MODEL") == 7


@pytest.mark.parametrize(
    ("suffix", "attribute", "message"),
    [
        ("", "biuld", "has no 'biuld'; did you mean build"),
        ("", "value", "int object is not a function"),
        ("", "broken", "calling it raised RuntimeError: no weights$"),
        ("_broken", "build", "needs the module 'billhook_test_absent', which is not installed"),
        ("_raising", "build", "importing it raised ZeroDivisionError"),
        ("_absent", "build", "no module 'billhook_test_user_module_absent'"),
    ],
)
def test_wrong_references(module: str, suffix: str, attribute: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call(Reference(module + suffix, attribute), "MODEL")


def test_a_missing_parent_package() -> None:
    with pytest.raises(OptionError, match="no module 'billhook_test_absent'"):
        resolve(Reference("billhook_test_absent.models", "build"), "MODEL")


def test_existing_names_the_neighbour(tmp_path: Path) -> None:
    (tmp_path / "record.json").touch()
    assert existing(tmp_path / "record.json", "RECORD") == tmp_path / "record.json"
    with pytest.raises(OptionError, match=r"did you mean record\.json"):
        existing(tmp_path / "recrod.json", "RECORD")
    with pytest.raises(OptionError, match="there is no folder"):
        existing(tmp_path / "out" / "record.json", "RECORD")


def test_a_result_folder_is_new_empty_or_ours(tmp_path: Path) -> None:
    assert result_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert result_folder(tmp_path) == tmp_path
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OptionError, match="holds something that Billhook did not write"):
        result_folder(tmp_path)
    with pytest.raises(OptionError, match="is a file"):
        result_folder(tmp_path / "thesis.tex")
    with pytest.raises(OptionError, match="cannot be written to"):
        result_folder(tmp_path / "thesis.tex" / "out")
    (tmp_path / "plan.json").touch()
    assert result_folder(tmp_path) == tmp_path


def test_the_database_follows_the_environment() -> None:
    assert default_database({"BILLHOOK_DB": "x.sqlite"}) == Path("x.sqlite")
    assert default_database({"XDG_CACHE_HOME": "/c"}) == Path("/c/billhook/measurements.sqlite")
    assert default_database({"HOME": "/h"}) == Path("/h/.cache/billhook/measurements.sqlite")
