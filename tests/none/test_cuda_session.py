"""A session drives the CUDA driver rightly: tests/support/fake_cuda.c stands in for it and logs what it is asked to do."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from billhook.codegen.cuda.driver import Driver
from billhook.codegen.cuda.program import CudaProgram
from billhook.codegen.cuda.session import Session
from billhook.codegen.gpu.launch import Launch
from billhook.ir.errors import DataError, MeasureError, ToolchainError
from billhook.ir.workload import TensorType

FAKE = Path(__file__).parents[1] / "support" / "fake_cuda.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("cuda") / "libfake.so"
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-o", str(made), str(FAKE)], check=True)
    return str(made)


@pytest.fixture
def fake(library: str) -> Iterator[ctypes.CDLL]:
    loaded = ctypes.CDLL(library)
    loaded.fake_log.restype = ctypes.c_char_p
    loaded.fake_reset()
    yield loaded
    assert loaded.fake_live() == 0, "everything made was freed"


def program() -> CudaProgram:
    """t = x + a; y = t + a, with t and y in the arena."""
    kind = TensorType((4,))
    launches = (Launch("first", (1, 2, 1), (4, 1, 1), ("t", "x", "a")), Launch("second", (1, 1, 1), (4, 1, 1), ("y", "t", "a"), 50000))
    return CudaProgram(
        (("x", kind),), (("y", kind), ("x", kind)), launches, {"t": 0, "y": 256}, 512, {"a": torch.ones(4)}, b"image", ("sm_90",)
    )


def test_launches_run_once_plainly_then_are_captured_and_replayed(fake: ctypes.CDLL, library: str) -> None:
    driver = Driver(library=library)
    with Session(program(), driver) as session:
        session.set_inputs(torch.arange(4.0))
        times = session.time(3)
        session.time(1, graph=False)
    driver.close()
    assert times == [pytest.approx(1.5e-3)] * 3
    plain = ["first 1,2,1 4,1,1 0", "second 1,1,1 4,1,1 50000"]
    captured = [f"captured {line}" for line in plain]
    assert fake.fake_log().decode().splitlines() == ["shared 50000", *plain, "capture", *captured, *["graph"] * 3, *plain]


def test_values_lie_where_the_plan_says(fake: ctypes.CDLL, library: str) -> None:
    driver = Driver(library=library)
    assert (driver.name, driver.capability, driver.version) == ("Fake GPU", (9, 0), 13000)
    with Session(program(), driver) as session:
        session.set_inputs(torch.arange(4.0))
        session.time(1, graph=False)
        y, x = session.run(torch.arange(4.0))
    driver.close()
    assert torch.equal(y, torch.arange(4.0) + 2)
    assert torch.equal(x, torch.arange(4.0))


def test_wrong_inputs_are_refused(fake: ctypes.CDLL, library: str) -> None:
    driver = Driver(library=library)
    with Session(program(), driver) as session:
        with pytest.raises(DataError, match="takes 1 inputs, 0 were given"):
            session.run()
        with pytest.raises(DataError, match=r"input 'x' has to be float32\[4\]"):
            session.run(torch.zeros(5))
    driver.close()


def test_a_failure_frees_what_was_made(fake: ctypes.CDLL, library: str) -> None:
    driver = Driver(library=library)
    first, second = program().launches
    with pytest.raises(MeasureError, match="cuModuleGetFunction failed on the GPU: CUDA_ERROR_NOT_FOUND"):
        Session(replace(program(), launches=(first, replace(second, symbol="missing"))), driver)
    driver.close()


def test_absent_and_old_devices_are_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolchainError, match=r"no CUDA driver \(libnowhere"):
        Driver(library="libnowhere.so")
    with pytest.raises(ToolchainError, match="no CUDA device 3"):
        Driver(3, library)
    monkeypatch.setitem(os.environ, "FAKE_CUDA_OLD", "1")
    with pytest.raises(ToolchainError, match="older than compute capability"):
        Driver(library=library)
