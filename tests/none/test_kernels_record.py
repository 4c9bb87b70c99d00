"""The kernels suite: ratios, what counts for the summary, and rows that survive an interruption."""

from pathlib import Path
from typing import Any

from benchmarks.kernels.record import add_row, read_rows, summarise


def _row(model: str, threads: int, ours: float, *peers: float, batch: int = 1, measured: int = 3, **more: Any) -> dict[str, Any]:
    runtimes = {"billhook": {"seconds": ours}, **{f"peer {i}": {"seconds": s} for i, s in enumerate(peers)}}
    row: dict[str, Any] = {
        "model": model,
        "threads": threads,
        "batch": batch,
        "precision": "float32",
        "variant": "dense",
        "runtimes": runtimes,
    }
    return {**row, **more, "build_seconds": 10.0 * ours, "kernels_measured": measured}


def test_ratios_are_to_the_fastest_peer_at_batch_one() -> None:
    rows = [_row("a", 1, 1.0, 2.0, 4.0), _row("a", 2, 3.0, 2.0), _row("b", 1, 1.0, 1.0), _row("b", 1, 9.0, 1.0, batch=8), _row("c", 1, 1.0)]
    summary = summarise(rows)
    assert summary["ratio_to_best_peer"] == {"a": {"1": 0.5, "2": 1.5}, "b": {"1": 1.0}}
    assert (summary["ratio_median"], summary["ratio_max"]) == (1.0, 1.5)


def test_builds_from_known_kernels_do_not_count_as_built_fast_or_slow() -> None:
    assert summarise([_row("a", 1, 5.0, 1.0, measured=0), _row("b", 1, 2.0, 1.0)])["build_seconds_max"] == 20.0


def test_nothing_measured_is_none() -> None:
    assert summarise([])["ratio_median"] is None


def test_the_last_row_of_a_case_counts(tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    for ours in (2.0, 1.0):
        add_row(_row("a", 1, ours, 4.0), path)
    assert summarise(read_rows(path).values())["ratio_to_best_peer"] == {"a": {"1": 0.25}}


def test_bfloat16_is_compared_with_the_peer_that_computes_in_it_and_nothing_else() -> None:
    runtimes = {"billhook": {"seconds": 1.0}, "OpenVINO": {"seconds": 0.5}, "OpenVINO default precision": {"seconds": 2.0}}
    reduced = _row("a", 1, 1.0, precision="bfloat16") | {"runtimes": runtimes}
    summary = summarise([reduced, _row("a", 1, 3.0, 4.0)])
    assert summary["bf16_ratio_median"] == 0.5
    assert summary["ratio_to_best_peer"] == {"a": {"1": 0.75}}


def test_a_case_has_a_row_for_each_precision(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for precision in ("float32", "bfloat16"):
        add_row(_row("a", 1, 1.0, 4.0, precision=precision), path)
    assert set(read_rows(path)) == {"a b1 t1", "a b1 t1 bf16"}


def test_pruned_networks_are_judged_apart_from_dense_ones(tmp_path: Path) -> None:
    rows = [_row("a", 1, 3.0, 4.0), _row("a", 1, 1.0, 2.0, variant="pruned"), _row("a", 1, 1.0, 4.0, batch=8, variant="pruned")]
    for row in rows:
        add_row(row, tmp_path / "rows.jsonl")
    summary = summarise(read_rows(tmp_path / "rows.jsonl").values())
    assert summary["pruned_ratio_median"] == 0.5
    assert summary["ratio_to_best_peer"] == {"a": {"1": 0.75}}
