"""The best design of each board for the same network."""

from collections.abc import Callable
from dataclasses import asdict

import torch

from benchmarks.rows import Rows
from billhook.codegen.fpga.boards import BOARDS
from billhook.codegen.fpga.kernels import network_layers
from billhook.codegen.fpga.search import search, summary
from billhook.compiler.fpga_cost import dense_partition, fpga_target
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.passes.analyse import ANALYSIS

from .dataflow import dataflow
from .task import NETWORKS


def run_boards(rows: Rows, say: Callable[[str], None]) -> None:
    """A row for each network and board."""
    for name, case in NETWORKS.items():
        torch.manual_seed(0)
        program, _ = run_passes(capture(case.make().eval(), (torch.zeros(1, 3, 32, 32),), {}), ANALYSIS)
        layers = network_layers(dense_partition(program, fpga_target("any", None)).network)
        for board in BOARDS:
            best = search(layers, board)[0]
            ceilings = board.ceilings
            streamed = dataflow(layers, best.resources.dsp)
            rows.add(
                {
                    "part": "board",
                    "network": name,
                    "board": board.name,
                    **summary(best),
                    "of": {"dsp": ceilings.dsp, "bram": ceilings.bram, "lut": ceilings.lut},
                    "design": str(best.accelerator),
                    "accelerator": asdict(best.accelerator),
                    "macs": sum(s.macs for s in layers),
                    "dataflow": asdict(streamed) if streamed else None,
                    "clock_mhz": board.clock,
                    "clock_is": "assumed",
                }
            )
            say(f"{name} on {board.name}: {best}")
