import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.codegen import bundle_machine, bundle_manifest, bundle_runtime
from billhook.codegen.bundle import BundleContent, verify, write_bundle
from billhook.codegen.bundle_vector import relative_error
from billhook.ir.errors import BundleError, OutputError
from billhook.ir.latency import Latency
from billhook.ir.planfile import load_plan, load_weights
from billhook.passes.cut import cut_graph

LATENCY = Latency(2e-3, 1e-3, 3e-3)


def edit(bundle: Path, change: Callable[[Any], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_bundle_verifies(bundle: Path) -> None:
    found = verify(bundle, timer=lambda run: (run(), LATENCY)[1])
    assert found.ok
    assert found.max_relative_error < 1e-5
    assert found.within_budget
    assert found.latency == LATENCY
    text = str(found)
    assert "test vector: ok" in text
    assert "66.7% of the budget of 3.000 ms" in text


def test_nothing_is_timed_without_a_timer(bundle: Path) -> None:
    found = verify(bundle)
    assert found.latency is None
    assert found.within_budget is None


def test_writing_and_verifying_print_nothing(content: BundleContent, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "out", content)
    verify(tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_what_a_bundle_holds(bundle: Path, content: BundleContent) -> None:
    manifest = bundle_manifest.read_manifest(bundle)
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest.files) == files - {"manifest.json"}
    for name in ("lib/model.so", "lib/libtvm_ffi.so", "lib/libtvm_runtime.so", "runner/main.cc", "runner/include/dlpack/dlpack.h"):
        assert name in files
    assert manifest.target.architecture == platform.machine()
    assert manifest.predicted is not None
    assert manifest.predicted.latency() == LATENCY
    assert load_plan(bundle).plan(content.program) == content.plan
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in bundle.rglob("*"))
    assert all((bundle / "licenses" / name).stat().st_size for name in ("tvm.LICENSE.txt", "tvm-ffi.LICENSE.txt", "README.md"))


def test_the_pruned_network_comes_back_bit_equal(bundle: Path, content: BundleContent) -> None:
    fresh = cut_graph(content.program, load_plan(bundle).plan(content.program))
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    load_weights(bundle, fresh)
    x = torch.as_tensor(content.vector.inputs[0])
    assert torch.equal(fresh(x), content.network(x))


@pytest.mark.parametrize("name", ["lib/model.so", "test/input0.bin", "plan.json", "model.safetensors", "runner/main.cc"])
def test_a_changed_byte_names_the_file(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: differs from its checksum"):
        verify(bundle)


@pytest.mark.parametrize("name", ["lib/model.so", "lib/libtvm_ffi.so", "test/vector.txt", "manifest.json"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: No such file"):
        verify(bundle)


def test_a_wrong_output_is_not_ok(content: BundleContent, tmp_path: Path) -> None:
    outputs = tuple(output + np.float32(0.01) for output in content.vector.outputs)
    write_bundle(tmp_path / "out", replace(content, vector=replace(content.vector, outputs=outputs)))
    found = verify(tmp_path / "out")
    assert not found.ok
    assert "DIFFERS" in str(found)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architecture", "riscv64", f"made for riscv64, this machine is {platform.machine()}"),
        ("architecture", "aarch64", f"is for {platform.machine()}, its manifest says aarch64"),  # arm64 itself runs under emulation
        ("features", ["avx512f", "avx1024"], "needs avx1024 instructions, which this processor lacks"),
        ("threads", 0, r"target\.threads"),
    ],
)
def test_another_machine_is_refused(bundle: Path, key: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_machine, "cpu_flags", lambda: frozenset({"avx512f"}))
    edit(bundle, lambda manifest: manifest["target"].update({key: value}))
    with pytest.raises(BundleError, match=message):
        verify(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "upgrade Billhook"),
        ({"versions": {"apache-tvm": "0.99.0"}}, r"made with apache-tvm 0\.99\.0"),
        ({"files": {}}, r"does not list lib/model\.so"),
        ({"budget_s": -1}, "budget_s"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(bundle: Path, change: dict[str, object], message: str) -> None:
    edit(bundle, lambda manifest: manifest.update(change))
    with pytest.raises(BundleError, match=message):
        verify(bundle)


def test_files_outside_of_the_bundle_are_not_read(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["files"].update({"../other": "0" * 64}))
    with pytest.raises(BundleError, match=r"\.\./other, which lies outside"):
        verify(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_one_line(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        verify(bundle)


def test_a_runtime_for_another_architecture_is_not_shipped(content: BundleContent, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    with pytest.raises(BundleError, match="no runtime for it is installed"):
        bundle_runtime.add_runtime(tmp_path, "riscv64")


def test_only_shared_libraries_have_an_architecture(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no library")
    with pytest.raises(BundleError, match="not a shared library"):
        bundle_machine.architecture(tmp_path / "text")


class Failing:
    """An artifact whose export fails in the middle."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def export(self, path: Path) -> None:
        path.write_bytes(b"half")
        raise self.failure


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_writing_leaves_nothing(content: BundleContent, tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises((KeyboardInterrupt, OutputError)):
        write_bundle(tmp_path / "out", replace(content, artifact=Failing(failure)))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_earlier_bundle(content: BundleContent, bundle: Path) -> None:
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(bundle, replace(content, artifact=Failing(OSError(28, "No space left on device"))))
    assert verify(bundle).ok


def test_a_bundle_replaces_an_earlier_one(content: BundleContent, bundle: Path) -> None:
    write_bundle(bundle, replace(content, budget=1.0))
    assert verify(bundle).manifest.budget_s == 1.0


def test_relative_error_is_by_the_scale_of_the_tensor() -> None:
    a = np.array([1e-9, 10.0], np.float32)
    assert relative_error([a], [a]) == 0
    assert relative_error([a + np.float32(1)], [a]) == pytest.approx(0.1)
    assert relative_error([a * np.float32("nan")], [a]) == float("inf")
    assert relative_error([a[:1]], [a]) == float("inf")
    assert relative_error([a, a], [a]) == float("inf")
    assert relative_error([a.astype(np.int64)], [a.astype(np.int64)]) == 0
    assert relative_error([a * 0 + 1], [a * 0]) == float("inf")
