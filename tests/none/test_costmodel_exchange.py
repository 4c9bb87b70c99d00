"""Samples leave and enter databases whole: merge, prune, selection, parquet, and every way in which a file can be wrong."""

import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_kernels import CountingMeasure, conv

from billhook.costmodel import exchange
from billhook.costmodel.exchange import read_parquet, write_parquet
from billhook.costmodel.measured import MeasuredCosts
from billhook.costmodel.sample import Conditions, Sample
from billhook.costmodel.selection import Merged, Run, Selection, stale
from billhook.costmodel.store import open_store
from billhook.ir.errors import OutputError, StoreError, ToolchainError
from billhook.ir.latency import Latency

pyarrow = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")

NEW = Conditions("llvm:znver4 on EPYC", "trials:16", (("apache-tvm", "0.27.0"), ("billhook", "0.1.0")))
OLD = replace(NEW, versions=(("apache-tvm", "0.26.0"), ("billhook", "0.1.0")))
BOARD = replace(NEW, fingerprint="llvm:cortex-a76 on Pi")


def sample(width: int = 16, conditions: Conditions = NEW, seconds: float = 1e-3, day: int = 1) -> Sample:
    latency = Latency(seconds, seconds * 0.9, seconds * 1.2, "device" if conditions is BOARD else "host")
    return Sample(conv(width, 32), conditions, latency, '["conv",[],""]', f"2026-11-{day:02}T09:00:00+00:00")


def failure(width: int = 16, day: int = 1) -> Sample:
    return Sample(conv(width, 32), NEW, None, "", f"2026-11-{day:02}T09:00:00+00:00", "took more than 60 s, twice\nand again")


MANY = [sample(16), sample(24, day=9), sample(16, OLD), sample(16, BOARD, 5e-3), failure(32)]


def filled(path: Path, samples: list[Sample] = MANY) -> Path:
    with open_store(path) as store:
        for one in samples:
            store.put(one)
    return path


def everything(path: Path) -> set[Sample]:
    with open_store(path) as store:
        return set(store.select(Selection()))


def test_a_database_survives_the_way_through_parquet(tmp_path: Path) -> None:
    with open_store(filled(tmp_path / "a.db")) as store:
        assert write_parquet(store.select(Selection()), tmp_path / "a.parquet") == len(MANY)
    with open_store(tmp_path / "b.db") as store:
        assert store.merge(read_parquet(tmp_path / "a.parquet")) == Merged(added=len(MANY))
        assert store.merge(read_parquet(tmp_path / "a.parquet")) == Merged(kept=len(MANY))
    assert everything(tmp_path / "b.db") == set(MANY)
    assert sorted(p.name for p in tmp_path.iterdir() if "db" not in p.name) == ["a.parquet"]


@pytest.mark.parametrize(
    ("here", "there", "stays"),
    [
        (sample(day=1), sample(seconds=2e-3, day=2), sample(seconds=2e-3, day=2)),
        (sample(day=2), sample(seconds=2e-3, day=1), sample(day=2)),
        (sample(day=1), failure(day=2), sample(day=1)),
        (failure(day=2), sample(day=1), sample(day=1)),
        (failure(day=1), failure(day=2), failure(day=2)),
    ],
)
def test_of_two_samples_the_newer_stays_but_a_latency_is_worth_more_than_a_failure(
    tmp_path: Path, here: Sample, there: Sample, stays: Sample
) -> None:
    with open_store(filled(tmp_path / "a.db", [here])) as store:
        merged = store.merge([there])
    assert everything(tmp_path / "a.db") == {stays}
    assert merged == (Merged(kept=1) if stays == here else Merged(replaced=1))


def test_a_merge_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(filled(tmp_path / "a.db", [sample(8)])) as store:
        store._connection.execute("PRAGMA max_page_count = 6")
        with pytest.raises(StoreError, match="make room"):
            store.merge([sample(width) for width in range(16, 4000, 8)])
    assert everything(tmp_path / "a.db") == {sample(8)}


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), set(MANY)),
        (Selection(target="cortex"), {MANY[3]}),
        (Selection(versions=(("apache-tvm", "0.26.0"),)), {MANY[2]}),
        (Selection(not_versions=NEW.versions), {MANY[2]}),
        (Selection(before="2026-11-05T00:00:00+00:00"), set(MANY) - {MANY[1]}),
        (Selection(failed=True), {MANY[4]}),
        (Selection(target="znver4", before="2026-11-05T00:00:00+00:00", versions=NEW.versions), {MANY[0], MANY[4]}),
    ],
)
def test_prune_drops_exactly_what_select_shows(tmp_path: Path, selection: Selection, chosen: set[Sample]) -> None:
    with open_store(filled(tmp_path / "a.db")) as store:
        assert set(store.select(selection)) == chosen
        assert store.prune(selection, dry=True) == len(chosen)
        assert len(store) == len(MANY)
        assert store.prune(selection) == len(chosen)
        assert set(store.select(Selection())) == set(MANY) - chosen


def test_samples_that_are_put_while_another_process_prunes_keep_their_conditions(tmp_path: Path) -> None:
    with open_store(filled(tmp_path / "a.db", [sample(16, BOARD)])) as writer, open_store(tmp_path / "a.db") as other:
        other.prune(Selection(target="cortex"))
        other.put(sample(16, OLD))
        writer.put(sample(24, BOARD))
    assert everything(tmp_path / "a.db") == {sample(24, BOARD), sample(16, OLD)}


def test_groups_count_and_leave_out_what_is_empty(tmp_path: Path) -> None:
    with open_store(filled(tmp_path / "a.db")) as store:
        store.prune(Selection(versions=OLD.versions))
        groups = {g.conditions: g for g in store.groups()}
    assert set(groups) == {NEW, BOARD}
    assert (groups[NEW].samples, groups[NEW].failures, groups[NEW].device) == (3, 1, 0)
    assert (groups[BOARD].samples, groups[BOARD].device) == (1, 1)
    assert groups[NEW].oldest < groups[NEW].newest == "2026-11-09T09:00:00+00:00"


def test_versions_that_differ_are_named() -> None:
    assert stale(NEW.versions, NEW.versions) == ""
    assert stale(OLD.versions, NEW.versions) == "apache-tvm 0.26.0, here 0.27.0"
    assert stale((), (("billhook", "2"),)) == "billhook absent, here 2"


def test_the_second_model_finds_what_the_first_measured(tmp_path: Path) -> None:
    first, second = [conv(8 * i, 32) for i in range(1, 5)], [conv(8 * i, 32) for i in range(3, 8)]
    with open_store(tmp_path / "a.db") as store:
        costs = MeasuredCosts(store, CountingMeasure(), NEW)
        costs.cost_many(first)
        costs.cost(first[0])
        assert (costs.reuse.wanted, costs.reuse.found) == (4, 0)
        costs = MeasuredCosts(store, CountingMeasure(), NEW)
        costs.cost_many(second)
        costs.cost(first[0])
        assert (costs.reuse.wanted, costs.reuse.found, costs.reuse.hit_rate) == (6, 3, 0.5)
        store.add_run(Run("first", "here", 4, 0, "2026-11-01"))
        store.add_run(Run("second", "here", 6, 3, "2026-11-02"))
        assert [(r.model, r.hit_rate) for r in store.runs()] == [("second", 0.5), ("first", 0.0)]


def test_a_database_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db")
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE runs; PRAGMA user_version = 1;")
    connection.close()
    with open_store(path) as store:
        store.add_run(Run("m", "here", 1, 1, "2026-11-01"))
        assert set(store.select(Selection())) == set(MANY)
        assert len(store.runs()) == 1


def _put_merge_prune(path: Path, number: int) -> None:
    with open_store(path) as store:
        own = replace(NEW, level=f"own:{number}")
        for i in range(12):
            store.put(sample(8 * (i + 1), own))
            store.merge([sample(8 * (i + 1)), sample(8 * (i + 1), replace(NEW, fingerprint=f"doomed {number}"))])
            store.prune(Selection(target=f"doomed {number}"))


def test_several_processes_put_merge_and_prune_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put_merge_prune, args=(path, i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [w.exitcode for w in writers] == [0] * 3
    with open_store(path) as store:
        counts = {g.conditions.level: g.samples for g in store.groups()}
    assert counts == {"own:0": 12, "own:1": 12, "own:2": 12, NEW.level: 12}


def _open_together(path: Path, together: Any) -> None:
    together.wait(60)
    with open_store(path) as store:
        assert len(store) == 0


def test_several_processes_create_it_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(20):  # each a chance for one to look while another is making the tables
        together = context.Barrier(6)
        openers = [context.Process(target=_open_together, args=(tmp_path / f"{turn}.db", together)) for _ in range(6)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join(120)
        assert [o.exitcode for o in openers] == [0] * 6, f"turn {turn}"


def rows(**changed: object) -> list[dict[str, object]]:
    return [exchange._row(sample(16)), exchange._row(sample(24)) | changed]


def written(path: Path, rows: list[dict[str, object]], mark: bytes = b"1") -> Path:
    schema = pyarrow.schema(list(exchange._columns(pyarrow).items()), metadata={b"billhook.samples": mark} if mark else None)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {"workload": "{"},
        {"workload": None},
        {"versions": "3"},
        {"fingerprint": None},
        {"seconds": -1.0},
        {"seconds": 0.0, "low": 0.0},
        {"low": 5.0},
        {"high": float("inf")},
        {"seconds": float("nan")},
        {"provenance": "guessed"},
        {"failure": "but it also has a latency"},
        {"taken_at": "yesterday"},
        {"seconds": None},
    ],
    ids=str,
)
def test_a_row_that_makes_no_sense_is_named_and_nothing_is_imported(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(StoreError, match=r"x\.parquet: row 1 is no sample") as caught:
        read_parquet(written(tmp_path / "x.parquet", rows(**changed)))
    assert "\n" not in str(caught.value)


def test_times_of_other_zones_are_compared_as_utc(tmp_path: Path) -> None:
    found = read_parquet(written(tmp_path / "x.parquet", rows(taken_at="2026-11-01T01:00:00+02:00")))
    assert found[1].taken_at == "2026-10-31T23:00:00+00:00"


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no samples of Billhook"):
        read_parquet(written(tmp_path / "x.parquet", rows(), mark=b""))
    with pytest.raises(StoreError, match="has format 2"):
        read_parquet(written(tmp_path / "x.parquet", rows(), mark=b"2"))
    whole = written(tmp_path / "x.parquet", rows()).read_bytes()
    for content in (b"not parquet", b"", whole[:-100], whole[: len(whole) // 2]):
        (tmp_path / "y.parquet").write_bytes(content)
        with pytest.raises(StoreError, match="cannot be read") as caught:
            read_parquet(tmp_path / "y.parquet")
        assert "\n" not in str(caught.value)
    table = parquet.read_table(tmp_path / "x.parquet").drop_columns(["low"])
    parquet.write_table(table, tmp_path / "z.parquet")
    with pytest.raises(StoreError, match="no column 'low'"):
        read_parquet(tmp_path / "z.parquet")


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for goal in (tmp_path / "absent" / "x.parquet", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_parquet(MANY, goal)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_without_pyarrow_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(exchange, "import_module", missing)
    with pytest.raises(ToolchainError, match=r"billhook\[db\]"):
        write_parquet(MANY, tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []
