"""What a kernel takes on an arm64 processor by LLVM's pipeline model (llvm-mca): cycles of its hottest loop times how often that runs.

No caches, no memory, no outer loops: good for ordering tiles and widths, never a time. Provenance is always "static".
"""

import re
import shutil
import subprocess
from dataclasses import dataclass

from billhook.codegen import lower
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.toolchain import first_error
from billhook.codegen.tvm_any import tvm
from billhook.ir.errors import MeasureError, ToolchainError
from billhook.ir.target import Target
from billhook.ir.workload import Ref, Workload

from .targets import processor_of

_TOOL = "llvm-mca"
_ITERATIONS = 100
_LABEL = re.compile(r"^(\.L\w+):")
_BRANCH = re.compile(r"^\s*(?:b\.\w+|b|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)")
_MULTIPLY_ADD, _STORE = re.compile(r"^\s*(?:f(?:mla|madd|mls)|sdot)\s"), re.compile(r"^\s*st[rpu]+\s+[qvs]")
_CYCLES = re.compile(r"Total Cycles:\s+(\d+)")
_VECTOR = 4  # float32 lanes of a NEON register


@dataclass(frozen=True, slots=True)
class Estimate:
    """cycles: of the whole kernel; loop_cycles: of one pass through its hottest loop, which holds so many multiply_adds and stores."""

    cycles: float
    loop_cycles: float
    multiply_adds: int
    stores: int

    def __str__(self) -> str:
        work = f"{self.multiply_adds} multiply-adds" if self.multiply_adds else f"{self.stores} stores"
        return f"{self.cycles:.0f} cycles (static estimate: {work} in {self.loop_cycles:.1f} cycles)"


def estimate(workload: Workload, candidate: Candidate, target: Target) -> Estimate:
    """The static estimate of a candidate's kernel. MeasureError where its code has no loop to look at."""
    text = assembly(workload, candidate, target)
    loops = inner_loops(text)
    if not loops:
        raise MeasureError(f"no static estimate for {candidate}: its code has no inner loop")
    hottest = max(loops, key=lambda loop: (_count(_MULTIPLY_ADD, loop), _count(_STORE, loop), -len(loop)))
    cycles = pipeline_cycles(hottest, processor_of(target).scheduled_as)
    adds, stores = _count(_MULTIPLY_ADD, hottest), _count(_STORE, hottest)
    passes = vector_steps(workload, candidate) / adds if adds else workload.output.elements / _VECTOR / max(stores, 1)
    return Estimate(passes * cycles, cycles, adds, stores)


def assembly(workload: Workload, candidate: Candidate, target: Target) -> str:
    """The kernel's machine code as text. MeasureError if it cannot be made."""
    try:
        module = tvm.IRModule({lower.KERNEL: lower.lower(workload, candidate, target)})
        return str(tvm.tirx.build(module, target=lower.tvm_target(target)).inspect_source("asm"))
    except (ValueError, TypeError, RuntimeError) as error:  # TVM's errors are subclasses of these
        raise MeasureError(f"{candidate} does not build for arm64: {str(error).strip().splitlines()[-1]}") from error


def inner_loops(text: str) -> list[list[str]]:
    """The instructions of every loop that contains no other: from a label to the branch back to it."""
    lines = text.splitlines()
    labels = {found[1]: i for i, line in enumerate(lines) if (found := _LABEL.match(line))}
    spans: list[tuple[int, int]] = []
    for end, line in enumerate(lines):
        found = _BRANCH.match(line)
        if found and labels.get(found[1], end) < end:
            spans.append((labels[found[1]], end))
    innermost = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[line for line in lines[a + 1 : b] if _is_instruction(line)] for a, b in innermost]


def vector_steps(workload: Workload, candidate: Candidate) -> float:
    """Vector multiply-adds of the kernel, whole vectors: lanes that are padding cost as much as others."""
    known = lower.multiplications(workload, candidate)
    if known:
        return known / _VECTOR
    call = workload.anchor
    weight = call.args[1] if len(call.args) > 1 else None
    if isinstance(weight, Ref) and weight.index < len(workload.inputs) and call.op in ("aten.linear.default", "aten.conv2d.default"):
        shape = workload.inputs[weight.index].shape
        depth = 1
        for size in shape[1:]:
            depth *= size
        rows = workload.output.elements // shape[0] if call.op == "aten.linear.default" else 1
        columns = -(-shape[0] // _VECTOR) if call.op == "aten.linear.default" else workload.output.elements / _VECTOR
        return rows * columns * depth
    return workload.output.elements / _VECTOR


def pipeline_cycles(instructions: list[str], processor: str) -> float:
    """Cycles per pass through these instructions in a steady state, by llvm-mca's model of the processor.

    ToolchainError if llvm-mca is missing, MeasureError if it refuses the code.
    """
    tool = shutil.which(_TOOL)
    if tool is None:
        raise ToolchainError(f"{_TOOL}, which estimates arm64 kernels, is not installed; install llvm (tools/install-debian.sh)")
    command = [tool, "-mtriple=aarch64", f"-mcpu={processor}", f"-iterations={_ITERATIONS}"]
    done = subprocess.run(command, input="\n".join(instructions), capture_output=True, text=True, check=False, timeout=60)
    found = _CYCLES.search(done.stdout)
    if done.returncode or found is None:
        raise MeasureError(f"{_TOOL} refuses the loop: {first_error(done)}")
    return int(found[1]) / _ITERATIONS


def _is_instruction(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith((".", "//", "#")) and not _LABEL.match(line)


def _count(pattern: re.Pattern[str], loop: list[str]) -> int:
    return sum(bool(pattern.match(line)) for line in loop)
