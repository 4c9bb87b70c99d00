"""`billhook db`: what it shows, what it moves, and what it refuses in one line."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from synthetic_kernels import conv

from billhook.cli import main
from billhook.costmodel.machine import SOFTWARE, installed_versions, this_machine
from billhook.costmodel.sample import Conditions, Sample
from billhook.costmodel.selection import Run, Selection
from billhook.costmodel.store import open_store
from billhook.ir.latency import Latency

Capture = pytest.CaptureFixture[str]
HERE = Conditions(f"llvm:x on {this_machine().cpu}", "trials:16", installed_versions(SOFTWARE))
OLD = Conditions(HERE.fingerprint, HERE.level, (("apache-tvm", "0.19.0"), ("billhook", version("billhook"))))
ELSEWHERE = Conditions("llvm:y on Pi", "trials:16", HERE.versions)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with three samples here, one of another TVM and one of another machine."""
    monkeypatch.setenv("COLUMNS", "300")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with open_store(tmp_path / "m.sqlite") as store:
        for width, conditions, taken_at in [(8, HERE, now), (16, HERE, "2020-01-01T00:00:00+00:00"), (8, OLD, now), (8, ELSEWHERE, now)]:
            store.put(Sample(conv(width, 32), conditions, Latency(2e-5, 1.9e-5, 2.4e-5), "[]", taken_at))
        store.put(Sample(conv(24, 32), HERE, None, "", now, "crashed\nbadly"))
        store.add_run(Run("ResNet", HERE.fingerprint, 40, 10, now))
    return tmp_path / "m.sqlite"


def run(capsys: Capture, *arguments: object) -> str:
    assert main(["db", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: Capture, *arguments: object) -> str:
    assert main(["db", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_info_says_what_is_used_here_and_why_the_rest_is_not(capsys: Capture, path: Path) -> None:
    lines = run(capsys, "info", "--db", path).splitlines()
    assert lines[0].startswith(f"{path}: 5 samples")
    (old,) = [line for line in lines if "0.19.0" in line]
    assert f"kept, not used: apache-tvm 0.19.0, here {version('apache-tvm')}" in old
    (elsewhere,) = [line for line in lines if "on Pi" in line]
    assert "another machine" in elsewhere
    (here,) = [line for line in lines if line.startswith("3 ")]
    assert here.rstrip().endswith(" used")
    (latest,) = [line for line in lines if "ResNet" in line]
    assert latest.rstrip().endswith("25%")


def test_list_shows_a_line_for_each_sample_that_is_chosen(capsys: Capture, path: Path) -> None:
    lines = run(capsys, "list", "--db", path).splitlines()
    assert len(lines) == 5
    assert sum("20.00 us [19.00, 24.00] (host)" in line for line in lines) == 4
    assert "failed: crashed badly" in run(capsys, "list", "--db", path, "--failed")
    assert len(run(capsys, "list", "--db", path, "--target", "Pi").splitlines()) == 1
    assert len(run(capsys, "list", "--db", path, "--version", "apache-tvm=0.19.0").splitlines()) == 1
    assert run(capsys, "list", "--db", path, "--limit", "2").splitlines()[2].startswith("... 3 more")


def test_list_marks_what_is_too_noisy(capsys: Capture, path: Path) -> None:
    with open_store(path) as store:
        store.put(Sample(conv(64, 32), HERE, Latency(2e-5, 1e-5, 4e-5), "[]", "2026-11-01T00:00:00+00:00"))
    (marked,) = [line for line in run(capsys, "list", "--db", path).splitlines() if "TOO NOISY" in line]
    assert "[10.00, 40.00]" in marked


def test_export_import_and_merge_move_all_samples(capsys: Capture, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert run(capsys, "export", tmp_path / "x.parquet", "--db", path).startswith("5 samples")
    assert run(capsys, "import", tmp_path / "x.parquet", "--db", tmp_path / "a.sqlite").startswith("5 samples added")
    assert "5 samples added" in run(capsys, "merge", path, "--db", tmp_path / "b.sqlite")
    for name in ("a", "b"):
        with open_store(path) as store, open_store(tmp_path / f"{name}.sqlite") as other:
            assert set(store.select(Selection())) == set(other.select(Selection()))


def test_prune_by_age_version_and_target(capsys: Capture, path: Path) -> None:
    assert run(capsys, "prune", "--db", path, "--older-than", "1y", "--dry-run") == "1 of 5 samples would be dropped\n"
    assert run(capsys, "prune", "--db", path, "--older-than", "1y") == "1 samples dropped, 4 left\n"
    assert run(capsys, "prune", "--db", path, "--stale") == "1 samples dropped, 3 left\n"
    assert run(capsys, "prune", "--db", path, "--target", "Pi") == "1 samples dropped, 2 left\n"
    assert run(capsys, "prune", "--db", path, "--failed") == "1 samples dropped, 1 left\n"


def test_bad_input_is_one_line(capsys: Capture, path: Path, tmp_path: Path) -> None:
    for command in ("info", "list", "prune"):
        options = ["--failed"] if command == "prune" else []
        assert "there is no database" in refused(capsys, command, "--db", tmp_path / "absent.sqlite", *options)
    assert not (tmp_path / "absent.sqlite").exists()
    assert "say which samples" in refused(capsys, "prune", "--db", path)
    assert "like 90d" in refused(capsys, "prune", "--db", path, "--older-than", "90")
    assert "smaller age" in refused(capsys, "prune", "--db", path, "--older-than", "99999y")
    assert "NAME=VERSION" in refused(capsys, "list", "--db", path, "--version", "0.27")
    assert "is the database itself" in refused(capsys, "merge", path, "--db", path)
    assert "no such file" in refused(capsys, "merge", tmp_path / "m.sqlit", "--db", path)
    (tmp_path / "text").write_text("hello, this is not a database" * 50)
    assert "damaged" in refused(capsys, "info", "--db", tmp_path / "text")
    with open_store(path) as store:
        assert len(store) == 5
