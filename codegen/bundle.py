"""Bundles: a folder with everything that a compiled network needs to run and to be checked, with or without Python."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from billhook.ir.atomic import atomic_folder
from billhook.ir.latency import Latency
from billhook.ir.plan import Plan
from billhook.ir.planfile import versions, write_plan
from billhook.ir.program import Program
from billhook.ir.target import Target

from .backend import Built, backend_named, backend_of
from .bundle_manifest import MANIFEST, VECTOR, LatencyPart, Manifest, check_files, digests, read_manifest, write_manifest
from .bundle_vector import TestVector, read_vector, relative_error, write_vector

Timer = Callable[[Callable[[], object]], Latency]

RUNTIME = ("apache-tvm", "apache-tvm-ffi")
_SLACK = 1.03  # what a repeated measurement of the same program may differ by


@dataclass(frozen=True)
class BundleContent:
    """What goes into a bundle.

    program, plan, network: the dense program, what was cut of it, and the pruned network (trainable). vector: inputs with
    the outputs that torch computed from them. budget: seconds, or None if there was none.
    """

    artifact: Built
    target: Target
    program: Program
    plan: Plan
    network: torch.nn.Module
    vector: TestVector
    budget: float | None = None
    predicted: Latency | None = None
    measured: Latency | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: the error of the test vector, and the latency here where it was timed."""

    bundle: Path
    manifest: Manifest
    max_relative_error: float
    tolerance: float
    latency: Latency | None

    @property
    def ok(self) -> bool:
        """Whether the outputs are as expected. A NaN is not."""
        return self.max_relative_error <= self.tolerance

    @property
    def within_budget(self) -> bool | None:
        """Whether the latency measured here is within the budget, give or take the noise of measuring; None if either is unknown."""
        if self.latency is None or self.manifest.budget_s is None:
            return None
        return self.latency.seconds <= self.manifest.budget_s * _SLACK

    def __str__(self) -> str:
        target = self.manifest.target
        error = f"max relative error {self.max_relative_error:.2g}, tolerance {self.tolerance:g}"
        lines = [
            f"{self.bundle}: {len(self.manifest.files)} files as recorded, for {target.kind} {target.mcpu or target.architecture}",
            f"test vector: {'ok' if self.ok else 'DIFFERS'} ({error})",
        ]
        if self.latency is not None:
            budget = self.manifest.budget_s
            share = f", {self.latency.seconds / budget:.1%} of the budget of {budget * 1e3:.3f} ms" if budget else ""
            lines.append(f"latency: {self.latency}{share}")
        return "\n".join(lines)


def write_bundle(folder: Path, content: BundleContent) -> None:
    """Write a bundle, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
        BundleError: no runtime for the target is installed.
    """
    with atomic_folder(folder, seal=MANIFEST) as stage:
        fill_bundle(stage, content)


def fill_bundle(stage: Path, content: BundleContent) -> Manifest:
    """Write a bundle into an empty folder that somebody else publishes; see `write_bundle`."""
    target = content.target
    part = backend_of(target).write_parts(content.artifact, target, stage)
    (stage / VECTOR).parent.mkdir()
    write_vector((stage / VECTOR).parent, content.vector)
    write_plan(stage, content.plan, content.program, content.network)
    manifest = Manifest(
        schema_version=1,
        target=part,
        budget_s=content.budget,
        predicted=LatencyPart.of(content.predicted) if content.predicted else None,
        measured=LatencyPart.of(content.measured) if content.measured else None,
        versions=versions(*RUNTIME),
        files=digests(stage),
    )
    write_manifest(stage, manifest)
    return manifest


def verify(bundle: Path, timer: Timer | None = None) -> Verification:
    """Check every file, that this machine can run the library, and that the test vector gives the expected outputs.

    timer: measures the latency of a callable, in seconds; without one nothing is timed.

    Raises:
        BundleError: a file is missing or was changed, or the bundle is for another machine or runtime.
    """
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    vector = read_vector((bundle / VECTOR).parent)
    backend = backend_named(_backend_name(manifest))
    artifact = backend.load(bundle, manifest)
    outputs = [output.numpy() for output in artifact.run(*vector.inputs)]
    latency = timer(artifact.bind(*vector.inputs)) if timer and backend.provenance else None
    return Verification(bundle, manifest, relative_error(outputs, vector.outputs), vector.tolerance, latency)


def _backend_name(manifest: Manifest) -> str:
    """Which backend runs the bundle here: for another machine's code, the one that emulates it, if there is one."""
    foreign = manifest.target.architecture == "aarch64" and platform.machine() not in ("aarch64", "arm64")
    return "arm64" if foreign else manifest.target.kind
