"""A network for Android: arm64 objects with a complete CMake and JNI project. Emitted, not linked: this machine has no Android NDK."""

import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tvm_ffi.libinfo

from billhook.codegen.backend import Choices
from billhook.codegen.build import executable
from billhook.codegen.bundle_machine import architecture
from billhook.ir.atomic import atomic_folder
from billhook.ir.errors import BundleError
from billhook.ir.network import Network

from .targets import ANDROID, arm_target

STATUS = "emitted, not linked"
_PROJECT = ("CMakeLists.txt", "billhook_jni.cc", "Network.java", "README.md")
_HEADERS = ("dlpack", "tvm")


def write_android_project(network: Network, choices: Choices, folder: Path, processor: str = "generic") -> tuple[Path, ...]:
    """Write the project into a new folder, whole or not at all; the paths of its objects.

    network: a partition for an arm64 target. MeasureError naming a kernel that cannot be made, OutputError where nothing can be written.
    """
    made = executable(network, choices, arm_target(processor, triple=ANDROID))
    with atomic_folder(folder, seal="README.md") as stage:
        objects = _objects(made, stage / "objects")
        home = resources.files("billhook.codegen.arm") / "android"
        for name in _PROJECT:
            (stage / name).write_bytes((home / name).read_bytes())
        (stage / "model.h").write_bytes((resources.files("billhook.codegen") / "runner" / "model.h").read_bytes())
        for header in _HEADERS:
            shutil.copytree(Path(tvm_ffi.libinfo.find_include_path()) / header, stage / "include" / header)
    return tuple(folder / "objects" / name for name in objects)


def _objects(made: Any, folder: Path) -> list[str]:
    """Write what TVM would link, and check that it is for arm64; the names."""
    folder.mkdir()
    names: list[str] = []

    def collect(output: str, files: Sequence[str], **_: object) -> None:
        for file in map(Path, files):
            goal = folder / f"{len(names)}-{file.name}"
            shutil.copyfile(file, goal)
            names.append(goal.name)
        Path(output).write_bytes(b"")

    made.export_library(str(folder / "none.so"), fcompile=collect)
    (folder / "none.so").unlink(missing_ok=True)
    for name in names:
        if architecture(folder / name) != "aarch64":
            raise BundleError(f"{name}: is for {architecture(folder / name)}, not for Android on arm64")
    return names
