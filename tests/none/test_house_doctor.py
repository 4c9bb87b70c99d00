"""The doctor finds what is missing, says what it is for, and how to get it."""

import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from billhook import doctor
from billhook.doctor import Finding


@pytest.fixture(autouse=True)
def tvm_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the real TVM takes seconds and is tested in tests/tvm."""
    monkeypatch.setattr(doctor, "_TVM_PROBE", "print('znver4')")


def findings(database: Path) -> dict[str, Finding]:
    return {f.name: f for f in doctor.examine(database)}


def test_every_remedy_is_written(tmp_path: Path) -> None:
    for finding in findings(tmp_path / "db").values():
        assert finding.needed_for
        assert finding.found
        assert finding.ok or finding.remedy


def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("apache-tvm", "openvino"):
            raise PackageNotFoundError(name)
        return "2.13.0"

    monkeypatch.setattr(doctor, "version", version)
    found = findings(tmp_path / "db")
    assert found["apache-tvm"] == Finding(
        "apache-tvm", "not installed", False, "compiling and tuning kernels", "pip install 'apache-tvm==0.27.0.post1'"
    )
    assert not found["openvino"].required
    assert found["torch"].ok


def test_a_wrong_tvm_ffi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_: str) -> str:
        return "0.1.15.post2"

    monkeypatch.setattr(doctor, "version", version)
    found = findings(tmp_path / "db")["apache-tvm-ffi"]
    assert not found.ok
    assert found.found == "0.1.15.post2, not ==0.1.14.post1"
    assert found.remedy == "pip install 'apache-tvm-ffi==0.1.14.post1'"


def test_a_crash_of_tvm_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TVM_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    found = findings(tmp_path / "db")["TVM at work"]
    assert not found.ok
    assert "tvm-ffi does not fit" in found.found


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings(tmp_path / "db")
    assert (found["C++ compiler"].found, found["C++ compiler"].ok) == ("not found", False)
    assert not found["CMake"].ok


def test_a_compiler_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'no C++17 here' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "no C++17 here" in findings(tmp_path / "db")["C++ compiler"].found


def test_a_database_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = findings(tmp_path / "file" / "db")["measurement database"]
    assert not found.ok
    assert "--db" in found.remedy


@pytest.mark.parametrize(("required", "last"), [(True, "missing: x"), (False, "everything required is here")])
def test_the_last_line_sums_up(capsys: pytest.CaptureFixture[str], required: bool, last: str) -> None:
    doctor.show([Finding("x", "not found", False, "tests", "get it", required)])
    out = capsys.readouterr().out
    assert out.strip().splitlines()[-1] == last
    assert "get it" in out
