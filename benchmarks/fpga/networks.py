"""Networks end to end in the simulator, dense and pruned: wrong values, predicted against simulated cycles, int8 against float."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.rows import Row, Rows
from billhook.codegen.fpga.assemble import assemble
from billhook.codegen.fpga.boards import find_board
from billhook.codegen.fpga.memory import IDEAL
from billhook.codegen.fpga.pricing import Pricer
from billhook.codegen.fpga.simulator import simulator
from billhook.codegen.fpga.verify import accelerated_macs, check
from billhook.compiler.fpga import FpgaOptions, compile_fpga, quality
from billhook.compiler.fpga_result import FpgaResult
from billhook.passes.cut import cut_graph

from .task import NETWORKS, Case, Digits, accuracy, train

BOARD = "pynq-z2"
SHARE = 0.5  # of the dense network's cycles
IMAGES = 3  # simulated per network
TEST = 200  # for accuracy


def run_networks(rows: Rows, cache: Path, say: Callable[[str], None]) -> None:
    """Train each network, compile it dense and pruned, and add a row for each."""
    data, held_out = Digits(train=True), Digits(train=False)
    for name, case in NETWORKS.items():
        if all(rows.find(part="network", network=name, share=share) for share in (1.0, SHARE)):
            continue
        torch.manual_seed(0)
        model = case.make()
        train(model, data, case.steps, fresh=case.fresh)
        say(f"{name}: trained, accuracy {accuracy(model, held_out, TEST):.3f}")
        for share in (1.0, SHARE):
            if rows.find(part="network", network=name, share=share) is not None:
                continue

            def tune(pruned: nn.Module, _dense: nn.Module, case: Case = case) -> None:
                train(pruned, data, case.tuning, rate=1e-3, fresh=case.fresh)

            options = FpgaOptions(find_board(BOARD), share, data=data.batches(32), finetune=tune)
            result = compile_fpga(model, data.pictures[:1], options, cache)
            rows.add(row(name, share, result, held_out, cache))
            say(str(rows.read()[-1]))


def row(name: str, share: float, result: FpgaResult, held_out: Digits, cache: Path) -> Row:
    """What was simulated of a compiled network, with an ideal memory and with the board's DRAM."""
    accelerator = result.design.accelerator
    ideal = assemble(result.quantised, Pricer(accelerator, IDEAL))
    built = simulator(accelerator, cache)
    wrong = compared = 0
    errors: dict[str, float] = {"ideal": 0.0, "dram": 0.0}
    cycles = {"ideal": 0, "dram": 0}
    for picture, _ in held_out.samples(IMAGES):
        for kind, program, memory in (("ideal", ideal, IDEAL), ("dram", result.machine, result.board.memory)):
            found = check(result.quantised, program, built, picture.numpy(), memory)
            wrong, compared = wrong + found.wrong, compared + found.compared
            errors[kind] = max(errors[kind], abs(found.predicted / found.cycles - 1))
            cycles[kind] = found.cycles
    macs = accelerated_macs(result.quantised)
    kept = {a.name: len(result.plan.kept.get(a.name, range(a.size))) for a in result.program.axes if a.prunable}
    channels = sum(a.size for a in result.program.axes if a.prunable)
    float_model = result.model if share < 1 else cut_graph(result.program, result.plan)
    return {
        "part": "network",
        "network": name,
        "share": share,
        "board": result.board.name,
        "array": f"{accelerator.rows}x{accelerator.columns}",
        "wrong": wrong,
        "compared": compared,
        "simulated_cycles": cycles,
        "cycle_error": errors,
        "utilisation": macs / cycles["dram"] / accelerator.rows / accelerator.columns,
        "macs": macs,
        "channels": channels,
        "channels_kept": sum(kept.values()),
        "accuracy_float": accuracy(float_model.eval(), held_out, TEST),
        "accuracy_int8": quality(result.quantised, held_out.samples(TEST)),
    }
