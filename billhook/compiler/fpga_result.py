"""What a compilation for a board gives back: the model, the plan, the accelerator, its program, and how to save them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from billhook.codegen.bundle_manifest import MANIFEST
from billhook.codegen.fpga.boards import Board
from billhook.codegen.fpga.bundle import FpgaBundle, fill_fpga_bundle
from billhook.codegen.fpga.lowering import QuantisedNetwork
from billhook.codegen.fpga.program import Program as MachineProgram
from billhook.codegen.fpga.search import Design
from billhook.codegen.fpga.verify import Checked
from billhook.ir.atomic import atomic_folder
from billhook.ir.plan import Plan
from billhook.ir.planfile import write_plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.prune import Pruned

from .fpga_cost import fpga_target

TOLERANCE = 0.001  # of the budget: what the cycle model and a simulation with the board's DRAM differ by


@dataclass(frozen=True)
class FpgaResult:
    """A network on a board. It has the model, plan, `met` and `save` of every result, and cycles where others have a latency.

    design, dense: with and without pruning, their cycles modelled. budget: cycles, None where nothing was to be pruned.
    checked: one sample in the simulator, or None. quality: what the user's function said of "dense", "pruned" and "int8".
    """

    board: Board
    program: Program
    pruned: Pruned
    design: Design
    dense: Design
    quantised: QuantisedNetwork
    machine: MachineProgram
    checked: Checked | None
    sample: torch.Tensor
    designs: tuple[Design, ...]
    budget: int | None = None
    quality: Mapping[str, float] = field(default_factory=dict[str, float])

    def __str__(self) -> str:
        lines = [f"{self.board.name}: {self.design}", f"dense: {self.dense.cycles} cycles (modelled) on {self.dense.accelerator}"]
        if self.budget is not None:
            lines.append(f"budget: {self.budget} cycles, {'met' if self.met else 'missed'}")
        if self.checked is not None:
            found = self.checked
            lines.append(f"simulated: {found.cycles} cycles, {found.wrong} of {found.compared} values differ from the integer reference")
        lines += [f"{name}: {value:.4g}" for name, value in self.quality.items()]
        return "\n".join((*lines, f"clock: {self.board.clock:g} MHz, assumed; not run on a board"))

    @property
    def model(self) -> nn.Module:
        """The pruned float model, trainable."""
        return self.pruned.model

    @property
    def plan(self) -> Plan:
        return self.pruned.plan

    @property
    def target(self) -> Target:
        return fpga_target(self.board.name, self.design.accelerator)

    @property
    def cycles(self) -> int:
        """Of the accelerator's steps for one sample: simulated where it was, else modelled. Never time on hardware."""
        return self.design.cycles if self.checked is None else self.checked.cycles

    @property
    def met(self) -> bool:
        """Whether the cycles are within the budget, up to `TOLERANCE`, and the simulated hardware equals the integer reference."""
        within = self.budget is None or self.cycles <= self.budget * (1 + TOLERANCE)
        return within and (self.checked is None or self.checked.wrong == 0)

    def save(self, folder: str | Path, clock: float | None = None) -> None:
        """Write the bundle, whole or not at all. clock: MHz after place and route, or None: the board's assumed one.

        Raises OutputError where the folder cannot be written.
        """
        with atomic_folder(Path(folder), seal=MANIFEST) as stage:
            write_plan(stage, self.plan, self.program, self.pruned.model)
            fill_fpga_bundle(stage, self._bundle(clock))

    def _bundle(self, clock: float | None) -> FpgaBundle:
        sample = self.sample.numpy().astype(np.float32)
        return FpgaBundle(
            name=type(self.program.model).__qualname__,
            board=self.board,
            design=self.design,
            program=self.machine,
            input=sample.reshape(-1),
            expected=self.quantised.outputs(sample).reshape(-1),
            simulated=self.checked.cycles if self.checked else None,
            clock=clock if clock is not None else self.board.clock,
            clock_is="assumed" if clock is None else "placed and routed",
        )


class IntegerNetwork(nn.Module):
    """The integer reference as a module, which the user's evaluation can call: [N, ...] to the network's outputs for each sample."""

    def __init__(self, network: QuantisedNetwork) -> None:
        super().__init__()
        self._network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.from_numpy(self._network.outputs(sample.numpy())) for sample in x.split(1)])
