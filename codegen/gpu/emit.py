"""Source for GPUs that cannot be run here: Metal and WebGPU. Emitted, not built: no compiler or device of theirs has seen it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from billhook.ir.errors import BundleError, OptionError
from billhook.ir.network import Network
from billhook.ir.workload import Workload

from .chain import chain, compile_all
from .hardware import Gpu
from .kernel import separate_sources
from .launch import sequence_to_data

STATUS = "emitted, not built"

# The limits that every such device keeps: Metal's GPU families since Apple 4, WebGPU's defaults.
GPUS = {
    "metal": Gpu("any Metal GPU", "metal", 8, group=512, local_bytes=32 << 10, warp=32),
    "webgpu": Gpu("any WebGPU device", "webgpu", 8, group=256, local_bytes=16 << 10, warp=1),
}
_ENDINGS = {"metal": "metal", "webgpu": "wgsl"}


def emit(network: Network, kind: str, folder: Path, ranks: Mapping[Workload, int] | None = None) -> tuple[Path, ...]:
    """Write the kernels' source, one file per device function, and launches.json, into a new folder; the paths.

    OptionError for a kind without a generator, MeasureError naming a kernel that cannot be made, BundleError where nothing can be written.
    """
    if kind not in GPUS:
        raise OptionError(f"no source is emitted for '{kind}'; use one of {', '.join(GPUS)}")
    kernels = compile_all(network, GPUS[kind], ranks or {})
    sequence = chain(network, kernels)
    sources = separate_sources(kernels.values(), GPUS[kind])
    data = {"status": STATUS, "gpu": asdict(GPUS[kind]), **sequence_to_data(sequence), "constants": list(sequence.constants)}
    try:
        folder.mkdir(parents=True)
        paths = [folder / f"{name}.{_ENDINGS[kind]}" for name in sources]
        for path, source in zip(paths, sources.values(), strict=True):
            path.write_text(f"// {STATUS}\n{source}", encoding="utf-8")
        (folder / "launches.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BundleError(f"cannot write '{folder}': {error.strerror or error}") from error
    return (*paths, folder / "launches.json")
