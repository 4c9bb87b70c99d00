"""Targets: what the kernels are made for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Hardware that kernels are generated for.

    kind: TVM's target kind ("llvm", "cuda", "opencl", ...); mcpu: the processor name that the code generator knows
    (for "cuda" the architecture, such as "sm_90");
    lanes: float32 lanes of the widest vector register; fine_lanes: the narrowest vector that still reaches the peak
    (8 on Zen 4, whose core has two 256-bit pipes); registers: vector registers; threads: threads of one inference;
    triple: what the code is made for where that is not this machine ("aarch64-linux-gnu").
    """

    kind: str = "llvm"
    mcpu: str = ""
    lanes: int = 16
    fine_lanes: int = 8
    registers: int = 32
    threads: int = 1
    triple: str = ""

    def __str__(self) -> str:
        return f"{self.triple or self.kind}:{self.mcpu or 'generic'}:{self.lanes}/{self.fine_lanes}x{self.registers}:t{self.threads}"

    def channel_block(self, channels: int) -> int:
        """Block of the channel-blocked layout of a tensor with this many channels.

        The wide block where padding to it costs no more than padding to the fine one, the fine block elsewhere: so all
        tensors of one width (residual partners) have the same layout, and layout changes vanish between kernels.
        """
        fine = -(-channels // self.fine_lanes) * self.fine_lanes
        return self.lanes if fine % self.lanes == 0 else self.fine_lanes

    @property
    def blocked(self) -> bool:
        """Whether feature maps are channel-blocked: on processors with vector registers. GPU threads read row-major maps."""
        return self.kind in {"llvm", "c"}

    @property
    def width_step(self) -> int:
        """Widths between multiples of this step cost what the next multiple costs."""
        return self.fine_lanes
