"""The measurement database: one SQLite file that every model, run and process shares.

A sample is found by (workload, fingerprint, tuning level, software versions). Each one is committed as soon as it is put, so an
interrupted run loses nothing, and several processes may read and write at once. Nothing is ever deleted to repair a file.
"""

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_args

from billhook.ir.errors import StoreError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.workload import Workload, workload_from_json

from .sample import Conditions, Sample, versions_from_json, versions_to_json
from .selection import Group, Merged, Run, Selection

SCHEMA_VERSION = 2
_APPLICATION_ID = 0x42494C48  # "BILH": marks the file as ours
_SCHEMA = """
CREATE TABLE conditions (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    level TEXT NOT NULL,
    versions TEXT NOT NULL,
    UNIQUE (fingerprint, level, versions)
);
CREATE TABLE samples (
    conditions INTEGER NOT NULL REFERENCES conditions (id),
    workload TEXT NOT NULL,
    seconds REAL, low REAL, high REAL, provenance TEXT,
    candidate TEXT NOT NULL,
    failure TEXT NOT NULL,
    taken_at TEXT NOT NULL,
    PRIMARY KEY (conditions, workload)
) WITHOUT ROWID;
"""
_SCHEMA_2 = """
CREATE TABLE runs (
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    wanted INTEGER NOT NULL,
    found INTEGER NOT NULL,
    taken_at TEXT NOT NULL
);
"""
_MIGRATIONS = (_SCHEMA, _SCHEMA_2)  # number i leads from schema i to schema i + 1
# A later failure (a build that ran out of memory, say) does not erase a latency that was measured before.
_PUT = """
INSERT INTO samples VALUES (:conditions, :workload, :seconds, :low, :high, :provenance, :candidate, :failure, :taken_at)
ON CONFLICT (conditions, workload) DO UPDATE SET seconds = excluded.seconds, low = excluded.low, high = excluded.high,
    provenance = excluded.provenance, candidate = excluded.candidate, failure = excluded.failure, taken_at = excluded.taken_at
WHERE (excluded.failure = '' OR samples.failure <> '')
"""
# A merge brings samples of any age: the newer one stays, but a latency is worth more than a failure.
_MERGE = _PUT + """AND (excluded.taken_at > samples.taken_at OR samples.failure <> '' AND excluded.failure = '') RETURNING 1"""
_SAMPLE = "SELECT workload, seconds, low, high, provenance, candidate, failure, taken_at FROM samples"
_CHOSEN = "conditions = :conditions AND (:before = '' OR taken_at < :before) AND (NOT :failed OR failure <> '')"
_GROUP = """
SELECT count(*), coalesce(sum(failure <> ''), 0), coalesce(sum(provenance = 'device'), 0), min(taken_at), max(taken_at)
FROM samples WHERE conditions = ?
"""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Samples in the file, how many of them are failures, and how many look-ups of this `Store` found or missed theirs."""

    samples: int
    failures: int
    hits: int
    misses: int

    def __str__(self) -> str:
        return f"{self.samples} samples ({self.failures} failed); {self.hits} of {self.hits + self.misses} look-ups found theirs"


class Store:
    """An open measurement database; made by `open_store`. Belongs to one thread; open another for another thread or process."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._ids: dict[Conditions, int] = {}
        self._hits = 0
        self._misses = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def get(self, workload: Workload, conditions: Conditions) -> Sample | None:
        """The stored sample, or None."""
        known = self._id(conditions)
        query = _SAMPLE + " WHERE conditions = ? AND workload = ?"
        rows = [] if known is None else self._run(query, (known, workload.key))
        self._hits += len(rows)
        self._misses += not rows
        return self._sample(rows[0], conditions) if rows else None

    def put(self, sample: Sample) -> None:
        """Store a sample durably; it replaces an earlier one, except that a failure does not replace a latency."""
        self._run(_PUT, self._row(sample))

    def merge(self, samples: Iterable[Sample]) -> Merged:
        """Take samples of another database over, all of them or, after any failure, none. Of two of one kernel the newer stays."""
        rows = [self._row(sample) for sample in samples]
        with self._transaction():
            before = len(self)
            changed = sum(len(self._run(_MERGE, row)) for row in rows)
            added = len(self) - before
        return Merged(added, changed - added, len(rows) - changed)

    def prune(self, selection: Selection, *, dry: bool = False) -> int:
        """Drop the selected samples and return how many; `dry` only counts them. Their conditions stay registered.

        (Another process may be about to put a sample under the number of such conditions, which must not come to mean others.)
        """
        action = "SELECT 1 FROM samples" if dry else "DELETE FROM samples"
        total = 0
        with self._transaction():
            for conditions in filter(selection.admits, self.conditions()):
                where = f" WHERE {_CHOSEN}" + ("" if dry else " RETURNING 1")
                total += len(self._run(action + where, self._chosen(selection, conditions)))
        return total

    def select(self, selection: Selection) -> Iterator[Sample]:
        """The selected samples, conditions by conditions, ordered by workload."""
        for conditions in filter(selection.admits, self.conditions()):
            for row in self._run(f"{_SAMPLE} WHERE {_CHOSEN} ORDER BY workload", self._chosen(selection, conditions)):
                yield self._sample(row, conditions)

    def groups(self) -> tuple[Group, ...]:
        """What the database holds, by conditions; those without samples are left out."""
        found: list[Group] = []
        for conditions in self.conditions():
            (row,) = self._run(_GROUP, (self._id(conditions),))
            if row[0]:
                found.append(Group(conditions, *row))
        return tuple(found)

    def add_run(self, run: Run) -> None:
        """Note how much of what a run needed was there already."""
        row = (run.model, run.fingerprint, run.wanted, run.found, run.taken_at)
        self._run("INSERT INTO runs (model, fingerprint, wanted, found, taken_at) VALUES (?, ?, ?, ?, ?)", row)

    def runs(self, limit: int = 10) -> tuple[Run, ...]:
        """The latest runs, newest first."""
        rows = self._run("SELECT model, fingerprint, wanted, found, taken_at FROM runs ORDER BY rowid DESC LIMIT ?", (limit,))
        return tuple(Run(*row) for row in rows)

    def conditions(self) -> tuple[Conditions, ...]:
        """All conditions that samples were taken under, oldest first."""
        rows = self._run("SELECT fingerprint, level, versions FROM conditions ORDER BY id", ())
        return tuple(Conditions(fingerprint, level, self._parse(versions_from_json, text)) for fingerprint, level, text in rows)

    def samples(self, conditions: Conditions) -> Iterator[Sample]:
        """All samples of these conditions, ordered by workload."""
        known = self._id(conditions)
        rows = [] if known is None else self._run(_SAMPLE + " WHERE conditions = ? ORDER BY workload", (known,))
        return (self._sample(row, conditions) for row in rows)

    def forget_failures(self, conditions: Conditions) -> int:
        """Drop the failed samples of these conditions, so that they are tried again; returns how many there were."""
        known = self._id(conditions)
        if known is None:
            return 0
        return len(self._run("DELETE FROM samples WHERE conditions = ? AND failure <> '' RETURNING 1", (known,)))

    def __len__(self) -> int:
        return self.statistics().samples

    def statistics(self) -> StoreStatistics:
        ((samples, failures),) = self._run("SELECT count(*), coalesce(sum(failure <> ''), 0) FROM samples", ())
        return StoreStatistics(samples, failures, self._hits, self._misses)

    def _chosen(self, selection: Selection, conditions: Conditions) -> dict[str, Any]:
        return {"conditions": self._id(conditions), "before": selection.before, "failed": selection.failed}

    def _row(self, sample: Sample) -> dict[str, Any]:
        """The columns of a sample, its conditions registered."""
        known = self._id(sample.conditions)
        if known is None:
            c = sample.conditions
            row = (c.fingerprint, c.level, versions_to_json(c.versions))
            self._run("INSERT OR IGNORE INTO conditions (fingerprint, level, versions) VALUES (?, ?, ?)", row)
            known = self._id(c)
        latency = sample.latency
        return {
            "conditions": known,
            "workload": sample.workload.key,
            "seconds": latency.seconds if latency else None,
            "low": latency.low if latency else None,
            "high": latency.high if latency else None,
            "provenance": latency.provenance if latency else None,
            "candidate": sample.candidate,
            "failure": sample.failure,
            "taken_at": sample.taken_at,
        }

    @contextmanager
    def _transaction(self) -> Generator[None]:
        """Everything inside becomes visible to other processes at once, or not at all."""
        self._run("BEGIN IMMEDIATE", ())
        try:
            yield
        except BaseException:
            self._run("ROLLBACK", ())
            raise
        self._run("COMMIT", ())

    def _id(self, conditions: Conditions) -> int | None:
        if conditions not in self._ids:
            row = (conditions.fingerprint, conditions.level, versions_to_json(conditions.versions))
            found = self._run("SELECT id FROM conditions WHERE fingerprint = ? AND level = ? AND versions = ?", row)
            if not found:
                return None
            self._ids[conditions] = found[0][0]
        return self._ids[conditions]

    def _run(self, statement: str, parameters: tuple[Any, ...] | dict[str, Any]) -> list[tuple[Any, ...]]:
        """One statement, which is one transaction, with all its rows."""
        with _as_store_errors(self.path):
            return self._connection.execute(statement, parameters).fetchall()

    def _sample(self, row: tuple[Any, ...], conditions: Conditions) -> Sample:
        workload, seconds, low, high, provenance, candidate, failure, taken_at = row
        if seconds is not None and provenance not in get_args(Provenance):
            raise _damaged(self.path, f"a latency has the unknown provenance {provenance!r}")

        def build(text: str) -> Sample:
            latency = None if seconds is None else Latency(seconds, low, high, provenance)
            return Sample(workload_from_json(text), conditions, latency, candidate, taken_at, failure)

        return self._parse(build, workload)

    def _parse(self, parse: Callable[[str], _T], text: str) -> _T:
        try:
            return parse(text)
        except (ValueError, TypeError, LookupError, AssertionError) as error:
            raise _damaged(self.path, f"a row cannot be read: {error}") from error


def open_store(path: Path, timeout: float = 60.0) -> Store:
    """Open the database at `path`, or create it together with its folder.

    timeout: seconds to wait for other processes that are writing.

    Raises:
        StoreError: the file is damaged, is another program's, was written by a newer Billhook, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: its folder cannot be made ({error.strerror}); choose another place for the database") from error
    with _as_store_errors(path):
        connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
        try:
            _check_owner(connection, path)
            _retry(lambda: connection.execute("PRAGMA journal_mode = WAL"), timeout)
            connection.execute("PRAGMA synchronous = NORMAL")  # survives the death of the process, which is what happens
            _migrate(connection)
            problems = connection.execute("PRAGMA quick_check").fetchall()
            if problems != [("ok",)]:
                raise _damaged(path, problems[0][0])
        except BaseException:
            connection.close()
            raise
    return Store(connection, path)


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file of another program or of a newer schema, before anything is written to it."""
    connection.execute("BEGIN")  # one view of the file for all three: another process may be making its tables
    ((version,),) = connection.execute("PRAGMA user_version")
    ((owner,),) = connection.execute("PRAGMA application_id")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    connection.execute("COMMIT")
    if owner != _APPLICATION_ID and (tables or owner or version):
        raise StoreError(f"{path} is a database of another program; choose another place for the measurements")
    if version > SCHEMA_VERSION:
        known = f"{path} has schema {version}, this Billhook knows schema {SCHEMA_VERSION}"
        raise StoreError(f"{known}; update Billhook or choose another place for the database")


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to this schema unless another process was faster. A schema only ever adds to the one before."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        ((version,),) = connection.execute("PRAGMA user_version")
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _retry(action: Callable[[], object], timeout: float) -> None:
    """Repeat while the file is locked: SQLite's own waiting does not cover the switch to write-ahead logging."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            action()
        except sqlite3.OperationalError as error:
            if _reason(error) not in ("SQLITE_BUSY", "SQLITE_LOCKED") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def _as_store_errors(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _store_error(path, error) from error


def _store_error(path: Path, error: sqlite3.Error) -> StoreError:
    match _reason(error):
        case "SQLITE_NOTADB" | "SQLITE_CORRUPT":
            return _damaged(path, str(error))
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return StoreError(f"{path} is locked by another process; wait for it to end, or choose another place for the database")
        case "SQLITE_READONLY" | "SQLITE_CANTOPEN" | "SQLITE_PERM" | "SQLITE_AUTH":
            return StoreError(f"{path} cannot be written ({error}); make its folder writable or choose another place for the database")
        case "SQLITE_FULL" | "SQLITE_IOERR":
            return StoreError(f"{path} cannot be written ({error}); make room on its disk: the samples stored so far are kept")
        case _:
            return _damaged(path, str(error))


def _reason(error: sqlite3.Error) -> str:
    """SQLite's primary result code: extended codes such as SQLITE_BUSY_SNAPSHOT start with it."""
    name: str = getattr(error, "sqlite_errorname", "") or ""
    return "_".join(name.split("_")[:2])


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is damaged ({' '.join(why.split())}); move it away, a new database is then begun (nothing was deleted)")
