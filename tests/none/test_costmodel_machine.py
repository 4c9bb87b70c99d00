"""What a record says about the machine."""

import json
from pathlib import Path

from billhook.costmodel.machine import fingerprint, installed_versions, parse_cpu, parse_load, parse_memory, this_machine
from billhook.ir.target import Target

X86 = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n\nprocessor\t: 1\nmodel name\t: other\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd0b\n"


def test_processors_are_told_apart_even_where_the_name_is_generic() -> None:
    assert parse_cpu(X86) == "AMD EPYC 25/17/1"
    assert parse_cpu(X86.replace("17", "1")) != parse_cpu(X86)
    assert parse_cpu(ARM) == "0x41/0xd0b/0x1"
    assert parse_cpu("") == ""


def test_memory_and_load() -> None:
    assert parse_memory("MemFree: 3 kB\nMemTotal:       16384 kB\n") == 16384 * 1024
    assert parse_memory("") is None
    assert parse_load("0.52 0.3 0.1 1/234 999\n") == 0.52
    assert parse_load("") is None


def test_this_machine_is_described_and_survives_missing_files(tmp_path: Path) -> None:
    real = this_machine(["numpy", "no-such-package"])
    assert real.cpu
    assert real.cores >= 1
    assert [name for name, _ in real.versions] == ["python", "numpy"]
    assert json.loads(real.to_json())["cpu"] == real.cpu
    bare = this_machine(root=tmp_path)
    assert (bare.memory, bare.load, bare.governor, bare.busy) == (None, None, "", False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("512.0 1 1 1/1 1\n")
    assert this_machine(root=tmp_path).busy


def test_fingerprints_differ_by_target_and_processor() -> None:
    prints = {fingerprint(t, c) for t in (Target(), Target(threads=2), Target(mcpu="znver4")) for c in ("a", "b")}
    assert len(prints) == 6
    assert installed_versions(["no-such-package"]) == ()
