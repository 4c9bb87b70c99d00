"""The measurement database: keys, durability, several writers, and every way in which the file can be bad."""

import multiprocessing
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_kernels import conv

from billhook.costmodel.sample import Conditions, Sample
from billhook.costmodel.store import SCHEMA_VERSION, Store, open_store
from billhook.ir.errors import StoreError
from billhook.ir.latency import Latency

HERE = Conditions("llvm:znver4 on EPYC", "templates:6", (("tvm", "0.27.0"), ("apache-tvm-ffi", "0.1.14")))


def sample(width: int = 16, conditions: Conditions = HERE, seconds: float = 1e-3) -> Sample:
    latency = Latency(seconds, seconds * 0.9, seconds * 1.2)
    return Sample(conv(width, 32), conditions, latency, '["conv",[]]', "2026-11-21T09:00:00+00:00")


def failure(width: int = 16) -> Sample:
    return Sample(conv(width, 32), HERE, None, "", "2026-11-21T09:00:00+00:00", "took more than 60 s")


def fill(store: Store) -> None:
    for width in range(16, 4096, 8):
        store.put(sample(width))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "samples.db"


def test_samples_come_back_equal_after_reopening(path: Path) -> None:
    with open_store(path) as store:
        store.put(sample(16))
        store.put(failure(24))
    with open_store(path) as store:
        assert store.get(conv(16, 32), HERE) == sample(16)
        assert store.get(conv(24, 32), HERE) == failure(24)
        assert store.get(conv(32, 32), HERE) is None
        assert list(store.samples(HERE)) == [sample(16), failure(24)]
        assert store.conditions() == (HERE,)
        statistics = store.statistics()
    assert (statistics.samples, statistics.failures, statistics.hits, statistics.misses) == (2, 1, 2, 1)


@pytest.mark.parametrize("changed", [{"fingerprint": "llvm:znver4 on Xeon"}, {"level": "templates:1"}, {"versions": (("tvm", "0.28.0"),)}])
def test_other_conditions_do_not_share_samples(path: Path, changed: dict[str, object]) -> None:
    other = replace(HERE, **changed)  # type: ignore[arg-type]
    with open_store(path) as store:
        store.put(sample())
        assert store.get(conv(16, 32), other) is None
        assert list(store.samples(other)) == []
        store.put(sample(conditions=other, seconds=2e-3))
        assert store.get(conv(16, 32), HERE) == sample()


def test_the_order_of_versions_is_no_part_of_the_key(path: Path) -> None:
    with open_store(path) as store:
        store.put(sample())
        assert store.get(conv(16, 32), replace(HERE, versions=tuple(reversed(HERE.versions)))) == sample()


def test_a_newer_sample_replaces_an_older_but_a_failure_does_not_erase_a_latency(path: Path) -> None:
    with open_store(path) as store:
        store.put(failure())
        store.put(sample(seconds=1e-3))
        store.put(sample(seconds=2e-3))
        store.put(failure())
        assert store.get(conv(16, 32), HERE) == sample(seconds=2e-3)
        assert len(store) == 1


def test_failures_can_be_forgotten(path: Path) -> None:
    with open_store(path) as store:
        assert store.forget_failures(HERE) == 0
        store.put(sample(16))
        store.put(failure(24))
        assert store.forget_failures(HERE) == 1
        assert list(store.samples(HERE)) == [sample(16)]


def test_every_flipped_region_of_the_file_is_noticed_or_harmless(path: Path) -> None:
    with open_store(path) as store:
        for width in range(8, 408, 8):
            store.put(sample(width))
    clean = path.read_bytes()
    complaints: list[str] = []
    for start in range(0, len(clean), 1536):
        path.write_bytes(clean[:start] + bytes(b ^ 0xFF for b in clean[start : start + 64]) + clean[start + 64 :])
        for extra in path.parent.glob("samples.db-*"):
            extra.unlink()
        try:
            with open_store(path) as store:
                list(store.samples(HERE))
        except StoreError as error:
            complaints.append(str(error))
    assert complaints
    assert all(str(path) in text and "\n" not in text for text in complaints)


@pytest.mark.parametrize("content", [b"not a database, but long enough to have a header" * 40, b"SQLite format 3\x00" + bytes(5000)])
def test_a_damaged_file_is_named_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="move it away"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_truncated_file_is_refused(path: Path) -> None:
    with open_store(path) as store:
        for width in range(8, 408, 8):
            store.put(sample(width))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(StoreError, match="damaged"):
        open_store(path)


def test_a_row_that_cannot_be_read_names_the_file(path: Path) -> None:
    with open_store(path) as store:
        store.put(sample())
    connection = sqlite3.connect(path)
    connection.execute("UPDATE samples SET low = 5")  # the interval no longer contains the value
    connection.commit()
    connection.close()
    with open_store(path) as store, pytest.raises(StoreError, match=r"samples\.db is damaged"):
        store.get(conv(16, 32), HERE)


def test_a_newer_schema_and_foreign_databases_are_refused_untouched(path: Path) -> None:
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match="update Billhook"):
        open_store(path)
    foreign = path.with_name("foreign.db")
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE holidays (day TEXT)")
    connection.commit()
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        open_store(foreign)
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("place", ["/proc/billhook.db", "/dev/null/samples.db", "/proc/folder/samples.db"])
def test_a_place_that_cannot_be_written_is_refused(place: str) -> None:
    with pytest.raises(StoreError, match=r"choose another place"):
        open_store(Path(place))


def test_a_read_only_database_is_one_clear_line(path: Path) -> None:
    with open_store(path) as store:
        store._connection.execute("PRAGMA query_only = 1")  # what a read-only mount answers; permissions do not bind root
        with pytest.raises(StoreError, match="make its folder writable"):
            store.put(sample())


def test_a_full_disk_is_one_clear_line_and_keeps_what_was_stored(path: Path) -> None:
    with open_store(path) as store:
        store.put(sample(8))
        store._connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(StoreError, match="make room"):
            fill(store)
    with open_store(path) as store:
        assert store.get(conv(8, 32), HERE) == sample(8)


def _write(path: Path, first: int, count: int) -> None:
    with open_store(path) as store:
        for width in range(first, first + count):
            store.put(sample(width, replace(HERE, level=str(width % 3))))


def test_several_processes_create_and_write_one_file(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, 1 + 40 * i, 50)) for i in range(4)]  # ranges overlap
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0] * 4
    with open_store(path) as store:
        assert len(store) == 170
        assert sum(len(list(store.samples(c))) for c in store.conditions()) == 170


def test_a_killed_process_loses_no_sample_that_it_put(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    put = context.Event()

    def write_and_hang() -> None:
        store = open_store(path)
        for width in range(1, 21):
            store.put(sample(width))
        put.set()
        time.sleep(60)

    process = context.Process(target=write_and_hang)
    process.start()
    assert put.wait(30)
    process.kill()
    process.join()
    with open_store(path) as store:
        assert len(store) == 20


def test_a_locked_file_is_reported_after_the_timeout(path: Path) -> None:
    open_store(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        open_store(path, timeout=0.1)
    holder.close()
