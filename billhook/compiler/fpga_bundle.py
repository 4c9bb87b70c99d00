"""Writing what `compile_fpga` made as a bundle."""

from pathlib import Path

import numpy as np

from billhook.codegen.bundle_manifest import MANIFEST
from billhook.codegen.fpga.bundle import FpgaBundle, fill_fpga_bundle
from billhook.ir.atomic import atomic_folder
from billhook.ir.planfile import write_plan

from .fpga import FpgaResult


def save_fpga(result: FpgaResult, folder: Path, clock: float | None = None) -> None:
    """Write the bundle, whole or not at all. clock: MHz after place and route, or None: the board's assumed one.

    Raises OutputError where the folder cannot be written.
    """
    sample = result.sample.numpy().astype(np.float32)
    content = FpgaBundle(
        name=type(result.program.model).__qualname__,
        board=result.board,
        design=result.design,
        program=result.machine,
        input=sample.reshape(-1),
        expected=result.quantised.outputs(sample).reshape(-1),
        simulated=result.checked.cycles if result.checked else None,
        clock=clock if clock is not None else result.board.clock,
        clock_is="assumed" if clock is None else "placed and routed",
    )
    with atomic_folder(folder, seal=MANIFEST) as stage:
        write_plan(stage, result.plan, result.program, result.pruned.model)
        fill_fpga_bundle(stage, content)
