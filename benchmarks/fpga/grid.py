"""Cycles saved against channels removed, knowing the array's grid and not: every width cut by the same share, rounded to it or not."""

from collections.abc import Callable

import torch

from benchmarks.rows import Rows
from billhook.codegen.fpga.boards import find_board
from billhook.codegen.fpga.kernels import network_layers
from billhook.codegen.fpga.pricing import Pricer
from billhook.codegen.fpga.search import search
from billhook.compiler.fpga_cost import cycle_tables, dense_partition, fpga_target
from billhook.costmodel.network_cost import CostTables
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.program import Program
from billhook.passes.analyse import ANALYSIS

from .task import CifarResNet

BOARD = "pynq-z2"
SHARES = tuple(round(0.05 * i, 2) for i in range(1, 16))


def run_grid(rows: Rows, say: Callable[[str], None]) -> None:
    """A row for each share and way of rounding."""
    torch.manual_seed(0)
    program, _ = run_passes(capture(CifarResNet().eval(), (torch.zeros(1, 3, 32, 32),), {}), ANALYSIS)
    board = find_board(BOARD)
    parts = dense_partition(program, fpga_target(board.name, None))
    design = search(network_layers(parts.network), board)[0]
    pricer = Pricer(design.accelerator, board.memory)
    axes = {a.name: a.size for a in program.axes if a.prunable}
    dense = cycles_at(program, {}, pricer)
    for share in SHARES:
        for aware in (False, True):
            step = design.accelerator.columns if aware else 1
            sizes = {n: max(step, round(s * (1 - share) / step) * step) for n, s in axes.items()}
            removed = 1 - sum(sizes.values()) / sum(axes.values())
            saved = 1 - cycles_at(program, sizes, pricer) / dense
            array = f"{design.accelerator.rows}x{design.accelerator.columns}"
            rows.add({"part": "grid", "share": share, "aware": aware, "removed": removed, "saved": saved, "array": array})
            say(f"cut by {share:.0%}, {'on the grid' if aware else 'anywhere'}: {removed:.1%} of channels, {saved:.1%} of cycles")


def cycles_at(program: Program, sizes: dict[str, int], pricer: Pricer) -> float:
    """Modelled cycles with these sizes."""
    parts = dense_partition(program, fpga_target(BOARD, pricer.accelerator))
    candidates = {a.name: (sizes.get(a.name, a.size),) for a in program.axes}
    tables: CostTables = cycle_tables(program, parts, candidates, pricer)
    return tables.constant + sum(float(t.seconds.sum()) for t in tables.tables)
