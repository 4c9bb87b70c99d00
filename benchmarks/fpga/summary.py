"""The figures of the record, from its rows."""

from collections.abc import Iterable
from typing import Any

from benchmarks.rows import Row
from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.resources import estimate

NOTES = (
    "Cycles are simulated or modelled, never time on hardware; nothing was run on a board. They count the accelerator's steps, not "
    "what the host computes between them. Resources are static: yosys before placement, compared with no vendor tool. Clocks of Xilinx "
    "boards and the timings of all memories are assumptions. Accuracy is of the integer reference, which the simulated hardware equals in "
    "every value compared. Shares of tables and flip-flops in the resource model are set at the design 'fitted_at' of xc7 and xcup: there "
    "their error is 0 by construction; those of ecp5 were not compared with synthesis unless designs of it are listed."
)


FITTED = "8x8 bus 8"


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """The keys that the report reads."""
    listed = list(rows)
    networks = [r for r in listed if r["part"] == "network"]
    return {
        "wrong_outputs": sum(r["wrong"] for r in networks),
        "compared_outputs": sum(r["compared"] for r in networks),
        "cycle_error_max": {kind: max((r["cycle_error"][kind] for r in networks), default=None) for kind in ("ideal", "dram")},
        "utilisation": {f"{r['network']} at {r['share']:.0%}": round(r["utilisation"], 3) for r in networks},
        "cycles_saved_vs_channels": [{k: r[k] for k in ("aware", "removed", "saved")} for r in listed if r["part"] == "grid"],
        "accuracy": {f"{r['network']} at {r['share']:.0%}": {"float": r["accuracy_float"], "int8": r["accuracy_int8"]} for r in networks},
        "resource_error": {**resource_errors(listed), "fitted_at": FITTED},
        "boards": boards(listed),
    }


def resource_errors(rows: list[Row]) -> dict[str, Any]:
    """For each kind the largest and the mean relative error of the estimate, over all synthesised designs, by family."""
    found: dict[str, Any] = {}
    for row in (r for r in rows if r["part"] == "resources"):
        made = estimate(Accelerator(**row["accelerator"]), row["family"])
        errors = found.setdefault(row["family"], {})
        for kind in ("dsp", "bram", "lut", "flip_flops"):
            errors.setdefault(kind, []).append(abs(getattr(made, kind) / row[kind] - 1) if row[kind] else 0.0)
    return {
        family: {k: {"max": round(max(v), 4), "mean": round(sum(v) / len(v), 4), "designs": len(v)} for k, v in errors.items()}
        for family, errors in found.items()
    }


def boards(rows: list[Row]) -> dict[str, Any]:
    """The best design of each board for the ResNet; a clock after place and route where that design was placed."""
    placed = [r for r in rows if r["part"] == "place"]
    found: dict[str, Any] = {}
    for row in (r for r in rows if r["part"] == "board" and r["network"] == "resnet8"):
        routed = next((r for r in placed if _array(r) == row["array"] and row["board"] == "ulx3s"), None)
        found[row["board"]] = {
            **{k: row[k] for k in ("array", "dsp", "bram", "lut", "cycles")},
            "clock": row["clock_mhz"] if routed is None else round(routed["mhz"], 1),
            "clock_is": row["clock_is"] if routed is None else "placed and routed, of an equal array, out of context",
        }
    return found


def _array(row: Row) -> str:
    return f"{row['accelerator']['rows']}x{row['accelerator']['columns']}"
