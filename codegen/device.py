"""A remote device as a value: TVM RPC servers that share a key at a tracker, and what they say about their processor."""

import re
from dataclasses import dataclass

from billhook.ir.errors import OptionError

_IDENTITY = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU implementer", "CPU part", "CPU variant", "CPU revision")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a tracker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse `host:port` or `[ipv6]:port`. Raises OptionError."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:\[\]/]+)):(\d{1,5})", text.strip())
    if match is None or not 0 < int(match[3]) < 65536:
        raise OptionError(f"tracker {text}: write host:port, like 192.168.1.20:9190")
    return Address(match[1] or match[2], int(match[3]))


@dataclass(frozen=True, slots=True)
class Device:
    """Equal boards, as many as there are servers registered under `key` at the tracker.

    target: as in `bh.compile`; "llvm" is the device's own processor. timeout: seconds that one kernel may occupy a server.
    """

    name: str
    tracker: Address
    key: str
    target: str = "llvm"
    timeout: float = 60.0

    def __str__(self) -> str:
        return f"{self.name} ({self.key} at {self.tracker})"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device says of itself; "" where it does not tell.

    cpuinfo: beginning of /proc/cpuinfo; mcpu, triple: as LLVM on the device names its processor and system.
    """

    cpuinfo: str
    mcpu: str
    triple: str

    @property
    def architecture(self) -> str:
        return self.triple.partition("-")[0]


def identity(cpuinfo: str) -> tuple[tuple[str, str], ...]:
    """What tells processor models apart in the first entry of /proc/cpuinfo, without clock and numbering."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in _IDENTITY:
            found.setdefault(key.strip(), value.strip())
    return tuple(sorted(found.items()))
