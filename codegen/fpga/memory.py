"""The memory behind the accelerator: ideal, or a DRAM that reads and writes share. `driver/memory.h` simulates it cycle by cycle."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """Times in cycles of the accelerator's clock.

    read_latency: from a request to its first beat; write_latency: from the last beat to the acknowledgement. Ideal (shared False):
    reads and writes at one beat per cycle each. Shared: both take turns in chunks of up to `chunk` beats within a page; a beat takes
    `interval` cycles, opening another page `page_cycles`, changing between reads and writes `turnaround`, and every
    `refresh_period` cycles the memory is away for `refresh_cycles`.
    """

    read_latency: int = 24
    write_latency: int = 8
    shared: bool = False
    interval: int = 1
    chunk: int = 16
    page_bytes: int = 2048
    page_cycles: int = 8
    turnaround: int = 4
    refresh_period: int = 1560
    refresh_cycles: int = 32

    def arguments(self) -> tuple[int, ...]:
        """The fields in order, as the simulator takes them."""
        return (
            self.read_latency,
            self.write_latency,
            int(self.shared),
            self.interval,
            self.chunk,
            self.page_bytes,
            self.page_cycles,
            self.turnaround,
            self.refresh_period,
            self.refresh_cycles,
        )


IDEAL = Memory()
DRAM = Memory(shared=True)
