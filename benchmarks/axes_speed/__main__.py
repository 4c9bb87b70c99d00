"""Time both tools on each network, one after the other, and write the record."""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.environment import environment, record_path

from .measure import ours, theirs
from .networks import Made, networks

HOME = Path(__file__).parents[1] / "results" / "axes_speed"
ROWS = Path("out") / "axes_speed" / "rows.json"  # what is known so far: a run goes on where the last one stopped
SECONDS = 240
LIMIT = 3600  # ours finishes; this is for the machine's sake
PACKAGES = ("torch", "torchvision", "torch-pruning")


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.axes_speed", description=__doc__)
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--again", action="store_true", help="time those with a row as well")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="CPU time after which the peer counts as not finished")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, build in networks().items():
        if (options.names and name not in options.names) or (name in _rows() and not options.again):
            continue
        row = {**_in_child(ours, build, LIMIT), **_in_child(theirs, build, options.seconds)}
        ROWS.parent.mkdir(parents=True, exist_ok=True)
        ROWS.write_text(json.dumps({**_rows(), name: row}, indent=1) + "\n")
        print(name, json.dumps(summary(row)), flush=True)
    _write({name: row for name in networks() if (row := _rows().get(name))})
    return 0


def _rows() -> dict[str, dict[str, Any]]:
    return json.loads(ROWS.read_text()) if ROWS.exists() else {}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Seconds of capture, analysis, cut and peer (null where it failed or did not finish), its ratio to ours, and both peaks of memory."""
    mine = row["analysis_s"] + row["cut_s"] if "cut_s" in row else None
    peer = row.get("peer_s")
    ratio = round(peer / mine, 2) if mine and peer else None
    return {
        **{k: row.get(k) for k in ("capture_s", "analysis_s", "cut_s", "peer_s")},
        "ratio": ratio,
        "memory_bytes": row.get("memory_bytes"),
        "peer_memory_bytes": row.get("peer_memory_bytes"),
        "peer_error": row.get("theirs_error", ""),
    }


def _in_child(tool: Callable[..., None], build: Callable[[], Made], seconds: int) -> dict[str, Any]:
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(tool, build, send, seconds))
    child.start()
    send.close()
    row: dict[str, Any] = {}
    try:
        while True:
            row.update(receive.recv())
    except EOFError:
        child.join()
    if child.exitcode:
        row[f"{tool.__name__}_error"] = f"not finished in {seconds} CPU seconds"
    return row


def _child(tool: Callable[..., None], build: Callable[[], Made], send: Any, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    try:
        tool(build, send.send)
    # The peer may raise anything on a network that it does not support: that is its row.
    except Exception as failure:  # noqa: BLE001
        send.send({f"{tool.__name__}_error": f"{type(failure).__qualname__}: {failure}"[:300]})


def _write(rows: dict[str, dict[str, Any]]) -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    where = {**environment(PACKAGES), "clock": "CPU seconds of the process, one thread; of short calls, the fastest of 8 batches' means"}
    record = {"environment": where, "summary": {name: summary(row) for name, row in rows.items()}, "rows": rows}
    record_path(HOME).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
