"""What a bundle carries besides the network, so that it runs without Python: runtime libraries, headers, runner, licences."""

import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import tvm
import tvm.libinfo
import tvm_ffi.libinfo

from billhook.ir.errors import BundleError

from .bundle_machine import architecture

RUNNER_SOURCES = ("CMakeLists.txt", "main.cc", "model.h", "vector.h")

_HEADERS = ("dlpack", "tvm")


def add_runtime(bundle: Path, made_for: str, runtime: Sequence[Path] = ()) -> None:
    """Copy the runtime libraries to lib/, the runner with the headers that it needs to runner/, and the licences.

    made_for: architecture of the bundle's library, which the runtime must share; runtime: its libraries, by default the installed ones.

    Raises:
        BundleError: the installed runtime is for another architecture, or has no licence file.
    """
    for library in runtime or (Path(tvm.libinfo.find_libtvm_runtime()), Path(tvm_ffi.libinfo.find_libtvm_ffi())):
        if architecture(library) != made_for:
            raise BundleError(f"{library}: is for {architecture(library)}, the bundle for {made_for}; no runtime for it is installed")
        shutil.copyfile(library, bundle / "lib" / library.name)
    runner = bundle / "runner"
    include = Path(tvm_ffi.libinfo.find_include_path())
    for folder in _HEADERS:
        shutil.copytree(include / folder, runner / "include" / folder)
    _add_runner(runner)
    _add_licences(bundle / "licenses")


def _add_runner(folder: Path) -> None:
    sources = resources.files("billhook.codegen") / "runner"
    for name in RUNNER_SOURCES:
        (folder / name).write_bytes((sources / name).read_bytes())


def _add_licences(folder: Path) -> None:
    """Apache-2.0 asks that its text and the notices travel with the files."""
    folder.mkdir()
    notes = resources.files("billhook.codegen") / "runner" / "LICENSES.md"
    (folder / "README.md").write_bytes(notes.read_bytes())
    for package in (tvm, tvm_ffi):
        home = Path(str(package.__file__)).parent
        wheels = home.parent.glob(f"apache_{package.__name__}-*.dist-info/licenses/*")
        texts = [path for path in (home / "LICENSE", home / "NOTICE", *sorted(wheels)) if path.is_file()]
        if not any(path.name == "LICENSE" for path in texts):
            raise BundleError(f"{home}: its licence is not there, without which it may not be passed on; install it from its wheel")
        for path in texts:
            shutil.copyfile(path, folder / f"{package.__name__.replace('_', '-')}.{path.name}.txt")
