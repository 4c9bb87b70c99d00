"""arm64 processors as targets: 128-bit vectors, 32 registers, code for Linux or Android."""

from dataclasses import dataclass

from billhook.ir.errors import OptionError
from billhook.ir.target import Target

LINUX, ANDROID = "aarch64-linux-gnu", "aarch64-linux-android29"


@dataclass(frozen=True, slots=True)
class Processor:
    """mcpu: LLVM's name, which stands for its instruction sets; scheduled_as: the processor whose LLVM pipeline model says most of it.

    LLVM schedules a Cortex-A76 with the model of the much smaller A57; Neoverse N1 is the same core family and has its own.
    """

    mcpu: str
    scheduled_as: str


PROCESSORS = {
    "generic": Processor("generic", "neoverse-n1"),
    "cortex-a53": Processor("cortex-a53", "cortex-a53"),
    "cortex-a55": Processor("cortex-a55", "cortex-a55"),
    "cortex-a72": Processor("cortex-a72", "cortex-a72"),
    "cortex-a76": Processor("cortex-a76", "neoverse-n1"),
    "neoverse-n1": Processor("neoverse-n1", "neoverse-n1"),
}
DEFAULT = "cortex-a76"


def arm_target(name: str = DEFAULT, threads: int = 1, triple: str = LINUX) -> Target:
    """The Target of a named arm64 processor. OptionError if it is unknown."""
    if name not in PROCESSORS:
        raise OptionError(f"arm64 processor '{name}' is not known; use one of {', '.join(PROCESSORS)}")
    return Target("llvm", PROCESSORS[name].mcpu, lanes=4, fine_lanes=4, registers=32, threads=threads, triple=triple)


def processor_of(target: Target) -> Processor:
    """The processor of an arm64 target."""
    return PROCESSORS.get(target.mcpu, PROCESSORS["generic"])
