"""The figures of the record, from its rows."""

from collections.abc import Iterable
from typing import Any

from benchmarks.rows import Row
from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.resources import COUNTED, Coefficients, estimate, features, fit

NOTES = (
    "Cycles are simulated or modelled, never time on hardware; nothing was run on a board. They count the accelerator's steps, not "
    "what the host computes between them. Resources are static: yosys before placement, compared with no vendor tool. Clocks of Xilinx "
    "boards and the timings of all memories are assumptions. Accuracy is of the integer reference, which the simulated hardware equals in "
    "every value compared. Errors of tables and flip-flops in the resource model are by leave-one-out over few designs; multipliers and "
    "memory blocks are counted. 'dataflow_in_theory' is a formula (benchmarks/fpga/dataflow.py) for hls4ml's scheme with as many "
    "multipliers as our design, at full use of all of them: no output of hls4ml, whose own rule counts no DSP for weights of 8 bits."
)


KINDS = ("lut", "flip_flops")


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
        "resource_error": resource_errors(listed),
        "boards": boards(listed),
        "routed_on_ecp5": {r["design"]: routed(r) for r in listed if r["part"] == "place"},
    }


def resource_errors(rows: list[Row]) -> dict[str, Any]:
    """For each family and kind the largest and the mean relative error of the model over the synthesised designs.

    Tables and flip-flops are fitted: each design is estimated by a fit to the others. Multipliers and memory blocks are counted.
    """
    found: dict[str, Any] = {}
    for family in ("xc7", "xcup", "ecp5"):
        listed = [r for r in rows if r["part"] == "resources" and r["family"] == family]
        if len(listed) > 1:
            errors = {kind: counted_errors(listed, kind) for kind in ("dsp", "bram")}
            errors |= {kind: left_out_errors(listed, kind) for kind in KINDS}
            found[family] = {k: {"max": round(max(v), 4), "mean": round(sum(v) / len(v), 4), "designs": len(v)} for k, v in errors.items()}
    return found


def counted_errors(rows: list[Row], kind: str) -> list[float]:
    """Relative errors of what is counted."""
    made = [getattr(estimate(Accelerator(**r["accelerator"]), r["family"]), kind) for r in rows]
    return [abs(m / r[kind] - 1) for m, r in zip(made, rows, strict=True)]


def left_out_errors(rows: list[Row], kind: str) -> list[float]:
    """Relative errors of what is fitted, each design estimated without itself."""
    found: list[float] = []
    for row in rows:
        others = [r for r in rows if r is not row]
        estimated = float(features(Accelerator(**row["accelerator"])) @ fitted(others, kind))
        found.append(abs(estimated / row[kind] - 1))
    return found


def fitted(rows: list[Row], kind: str) -> Coefficients:
    """The coefficients of one family's designs."""
    designs = [Accelerator(**r["accelerator"]) for r in rows]
    return fit(designs, [r[kind] for r in rows], COUNTED[rows[0]["family"]][KINDS.index(kind)])


def routed(row: Row) -> dict[str, Any]:
    """The clock of a design that was placed and routed, or why there is none."""
    return {"mhz": round(row["mhz"], 1), "tools": row["tools"]} if row["mhz"] else {"mhz": None, "why": row["why"]}


def boards(rows: list[Row]) -> dict[str, Any]:
    """The best design of each board for the ResNet; a clock after place and route where that array was placed."""
    placed = [r for r in rows if r["part"] == "place" and r["mhz"]]
    found: dict[str, Any] = {}
    for row in (r for r in rows if r["part"] == "board" and r["network"] == "resnet8"):
        clock = next((r for r in placed if _array(r) == row["array"] and row["board"] == "ulx3s"), None)
        found[row["board"]] = {
            **{k: row[k] for k in ("array", "dsp", "bram", "lut", "cycles")},
            "dataflow_in_theory": row.get("dataflow"),
            "clock": row["clock_mhz"] if clock is None else round(clock["mhz"], 1),
            "clock_is": row["clock_is"] if clock is None else f"placed and routed: {row['array']}, out of context, {clock['tools']}",
        }
    return found


def _array(row: Row) -> str:
    return f"{row['accelerator']['rows']}x{row['accelerator']['columns']}"
