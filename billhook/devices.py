"""Named remote devices: a JSON file beside the measurement database, and what a device's own answers make of its target."""

import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from .codegen.arm.targets import PROCESSORS, arm_target
from .codegen.arm.toolchain import cross_compiler
from .codegen.device import Device, Facts, parse_address
from .codegen.host import cpu_target, flags_in
from .costmodel.machine import parse_cpu
from .ir.errors import DeviceError, OptionError
from .ir.target import Target
from .options import suggest

FILE = "devices.json"
ARM64 = "aarch64"
OWN = ("llvm", "cpu")  # target texts that mean the device's own processor
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_KEYS = {"tracker", "key", "target", "timeout"}


def devices_file(database: Path) -> Path:
    """Where the devices are listed whose samples the database holds."""
    return database.parent / FILE


def make_device(name: str, tracker: str, key: str, target: str, timeout: float) -> Device:
    """Check the parts of a device. Raises OptionError."""
    if not _NAME.fullmatch(name):
        raise OptionError(f"device {name!r}: a name is letters, digits, '.', '-' and '_', like rpi5")
    if not key or re.search(r"[\s:]", key):
        raise OptionError(f"device {name}: key {key!r} must not be empty or hold spaces or colons; it is what its servers register as")
    if not 1 <= timeout <= 86400:
        raise OptionError(f"device {name}: a timeout of {timeout:g} s is not within 1 and 86400 seconds")
    if not target:
        raise OptionError(f"device {name}: the target is empty; llvm means the device's own processor")
    return Device(name, parse_address(tracker), key, target, timeout)


def read_devices(path: Path) -> dict[str, Device]:
    """The devices by name; none where the file does not exist. Raises OptionError where it makes no sense."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, OSError) as error:
        raise OptionError(f"{path}: cannot be read ({error}); correct it, or move it away and add the devices anew") from error
    if not isinstance(data, dict):
        raise OptionError(f"{path}: holds no JSON object of devices; move it away and add the devices anew")
    return {name: _device(path, name, entry) for name, entry in cast("dict[str, Any]", data).items()}


def write_devices(path: Path, devices: Mapping[str, Device]) -> None:
    """Write the file, whole or not at all."""
    from .report.record import write_whole

    data = {d.name: {"tracker": str(d.tracker), "key": d.key, "target": d.target, "timeout": d.timeout} for d in devices.values()}
    write_whole(path, json.dumps(data, indent=2, sort_keys=True) + "\n")


def find_device(database: Path, name: str) -> Device:
    """The device of this name. Raises OptionError."""
    devices = read_devices(devices_file(database))
    if name in devices:
        return devices[name]
    hint = suggest(name, devices) or f"; add it: billhook device add {name} --tracker HOST:PORT --key KEY"
    raise OptionError(f"device {name}: not known{hint}")


def device_processor(device: Device, facts: Facts) -> str:
    """What samples of this device are filed under, besides the target: its processor, and the key that its boards share."""
    return f"{parse_cpu(facts.cpuinfo) or 'unknown processor'}, device {device.key}"


def own_target(device: Device, facts: Facts, threads: int) -> Target:
    """The target that a device's own processor is. DeviceError where it cannot be told, or kernels cannot be made for it here."""
    check_architecture(device, facts)
    if facts.architecture == ARM64 != platform.machine():
        return arm_target(facts.mcpu if facts.mcpu in PROCESSORS else "generic", threads)
    if not facts.mcpu:
        raise DeviceError(f"device {device.name} does not tell its processor: its runtime has no compiler; install the full TVM there")
    return cpu_target(facts.mcpu, flags_in(facts.cpuinfo), facts.architecture, threads)


def check_architecture(device: Device, facts: Facts) -> None:
    """DeviceError where the device runs a kind of code that this machine does not make, ToolchainError where it lacks the compiler."""
    here = platform.machine()
    if facts.architecture == ARM64 != here:
        cross_compiler()
    elif facts.architecture and facts.architecture != here:
        raise DeviceError(f"device {device.name} runs {facts.architecture} code; only devices of {here} and {ARM64} can be measured on")


def _device(path: Path, name: str, entry: Any) -> Device:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    if set(fields) != _KEYS:
        raise OptionError(f"{path}: device {name} needs exactly {', '.join(sorted(_KEYS))}; correct it or remove the entry")
    try:
        return make_device(name, str(fields["tracker"]), str(fields["key"]), str(fields["target"]), float(fields["timeout"]))
    except (OptionError, ValueError, TypeError) as error:
        raise OptionError(f"{path}: {error}") from error
