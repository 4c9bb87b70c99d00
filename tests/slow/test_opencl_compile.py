"""The whole compile call for target opencl: cut, tuned, measured on the installed driver, bundled and verified."""

from pathlib import Path

import pytest
import torch
from targets import needs_opencl
from torch import nn

import billhook.api as bh
from billhook.codegen.bundle import verify
from billhook.ir.errors import OptionError


class Small(nn.Module):
    """Two convolutions and a classifier: few widths, few kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


@needs_opencl
def test_compile_for_opencl(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = bh.compile(Small().eval(), torch.randn(1, 3, 32, 32), target="opencl", latency="80%", database=tmp_path / "kernels.db")
    assert result.build.error < 1e-4
    assert "OpenCL" in result.processor
    assert set(result.comparison.dense) == {"billhook"}, "the other runtimes do not run on this target"
    assert result.kernels
    result.save(tmp_path / "out")
    assert verify(tmp_path / "out").ok
    assert (tmp_path / "out" / "lib" / "kernels.cl").is_file()


def test_a_target_that_cannot_be_measured_takes_no_budget(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no milliseconds"):
        bh.compile(Small().eval(), torch.randn(1, 3, 32, 32), target="arm64", latency="80%", database=tmp_path / "kernels.db")
