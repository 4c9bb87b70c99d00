"""What a compilation gives back: the model, the plan, the proof, the kernels, and how to save and show them."""

from pathlib import Path
from typing import Any

import torch

from billhook.codegen.bundle import BundleContent, fill_bundle
from billhook.codegen.bundle_manifest import MANIFEST
from billhook.codegen.bundle_vector import TestVector
from billhook.ir.atomic import atomic_folder
from billhook.ir.tensors import tensors_in
from billhook.report import render
from billhook.report.record import Record, write_record

from .outcome import Outcome
from .precision import PRECISIONS
from .record import make_record


class Result(Outcome):
    """A compiled network: an outcome that can be shown and saved."""

    @property
    def bundle(self) -> BundleContent:
        """Everything that a bundle holds; `save` writes it."""
        inputs = tensors_in(self.program.example)
        with torch.no_grad():
            outputs = tensors_in(self._evaluated())
        tolerance = self.precision.tolerance
        if self.build.kernel_error is not None:  # torch in float32 is much further off than any kernel: what the checked build gave
            outputs, tolerance = self.build.artifact.run(*inputs), PRECISIONS["fp32"].tolerance
        arrays = tuple(t.numpy() for t in inputs), tuple(t.numpy() for t in outputs)
        vector = TestVector(*arrays, tolerance=tolerance, threads=self.target.threads)
        return BundleContent(
            artifact=self.build.artifact,
            target=self.target,
            program=self.program,
            plan=self.plan,
            network=self.model,
            vector=vector,
            budget=self.latency.budget,
            predicted=self.latency.predicted,
            measured=self.latency.measured,
        )

    def _evaluated(self) -> Any:
        args, kwargs = self.program.example
        return self.model.eval()(*args, **kwargs)

    def record(self, title: str = "Billhook", **more: Any) -> Record:
        """Everything that the report shows, as one versioned value; `more` adds or overrides fields."""
        return make_record(self, title, **more)

    def report(self, path: str | Path, title: str = "Billhook") -> None:
        """Write the report: one HTML file that needs no network."""
        render(self.record(title), Path(path))

    def save(self, folder: str | Path, record: Record | None = None) -> None:
        """Write the bundle (library, parameters, plan, test vector, runner) with record.json and report.html, whole or not at all.

        record: what to write instead of `self.record()`. Raises OutputError where the folder cannot be written.
        """
        shown = record or self.record()
        with atomic_folder(Path(folder), seal=MANIFEST) as stage:
            fill_bundle(stage, self.bundle)
            write_record(shown, stage / "record.json")
            render(shown, stage / "report.html")
