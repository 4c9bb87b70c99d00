"""The machine that a latency was measured on: what a record must state so that a number can be reproduced."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from billhook.ir.target import Target

SOFTWARE = ("apache-tvm", "billhook")  # what makes the kernels: samples of other versions are kept but not used
_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about this machine; None or "" where the system does not tell.

    cpu: model name with family, model and stepping (virtual machines share bare names); cores: those that this process may
    use, of `cores_online`; governor: frequency policy of the first core; memory: bytes of RAM; load: runnable processes
    averaged over the last minute, at the time of asking; versions: of Python, then (package, version), sorted.
    """

    cpu: str
    cores: int
    cores_online: int
    governor: str
    memory: int | None
    load: float | None
    system: str
    versions: tuple[tuple[str, str], ...]

    def to_json(self) -> str:
        """JSON text for records and reports."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def busy(self) -> bool:
        """True where other processes compete for the cores, so that timings may be noisy."""
        return self.load is not None and self.load > 0.5 * self.cores_online


def this_machine(packages: Iterable[str] = (), root: Path = _ROOT) -> Machine:
    """Facts about the machine that runs this process; `packages`: distributions whose versions matter (absent ones are left out).

    root: where /proc and /sys are looked up, for tests.
    """
    online = os.cpu_count() or 1
    return Machine(
        cpu=parse_cpu(_read(root / "proc/cpuinfo")) or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else online,
        cores_online=online,
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        memory=parse_memory(_read(root / "proc/meminfo")),
        load=parse_load(_read(root / "proc/loadavg")),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=(("python", platform.python_version()), *installed_versions(packages)),
    )


def fingerprint(target: Target, cpu: str) -> str:
    """What a sample's latency depends on besides the software: the target and the processor's model."""
    return f"{target} on {cpu}"


def installed_versions(packages: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(package, version) of those that are installed, sorted."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return tuple(sorted(found.items()))


def parse_cpu(cpuinfo: str) -> str:
    """Processor model from the text of /proc/cpuinfo, x86 or ARM; "" if it names none."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    numbers = [fields[k] for k in ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant") if k in fields]
    return " ".join(part for part in (fields.get("model name", ""), "/".join(numbers)) if part)


def parse_memory(meminfo: str) -> int | None:
    """Bytes of RAM from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def parse_load(loadavg: str) -> float | None:
    """One-minute load from the text of /proc/loadavg."""
    first, _, _ = loadavg.partition(" ")
    return float(first) if first else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
