"""The record of the FPGA suite: the resource model is the fit to its designs, and its stated error is of designs left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fpga.dataflow import dataflow
from benchmarks.fpga.summary import KINDS, fitted, resource_errors
from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.resources import COEFFICIENTS, COUNTED, features
from billhook.codegen.fpga.shape import LayerShape, MapShape
from billhook.codegen.fpga.synthesis import Family

RECORDS = Path(__file__).parents[2] / "benchmarks" / "results" / "fpga"


def synthesised() -> list[dict[str, Any]]:
    """Rows of the latest record that has several designs."""
    path = max(RECORDS.glob("*.json"), key=lambda p: p.name[-15:])
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return [r for r in rows if r["part"] == "resources"]


@pytest.mark.parametrize("family", ["xc7", "xcup", "ecp5"])
def test_the_model_is_the_fit_to_the_recorded_designs(family: Family) -> None:
    rows = [r for r in synthesised() if r["family"] == family]
    assert len(rows) >= 3
    for kind, coefficients in zip(KINDS, COEFFICIENTS[family], strict=True):
        assert np.allclose(fitted(rows, kind), coefficients, rtol=0.01)


def test_the_stated_error_is_of_designs_left_out() -> None:
    def row(accelerator: Accelerator, factor: float) -> dict[str, Any]:
        tables, flip_flops = (float(features(accelerator) @ c) for c in COUNTED["xc7"])
        shape = {"rows": accelerator.rows, "columns": accelerator.columns, "bus": accelerator.bus}
        counts = {
            "dsp": accelerator.rows * accelerator.columns + 3 * accelerator.bus,
            "bram": 1,
            "lut": factor * tables,
            "flip_flops": flip_flops,
        }
        return {"part": "resources", "family": "xc7", "accelerator": shape, **counts}

    shapes = (Accelerator(4, 4, 4), Accelerator(8, 8, 8), Accelerator(16, 8, 4), Accelerator(16, 16, 8))
    honest = resource_errors([row(a, 1.0) for a in shapes])["xc7"]
    assert honest["lut"] == {"max": 0.0, "mean": 0.0, "designs": 4}
    assert honest["dsp"]["max"] == 0.0
    odd = resource_errors([row(a, 1.5 if a.rows == 4 else 1.0) for a in shapes])["xc7"]
    assert odd["lut"]["max"] > 0.25, "the odd design does not pull the fit that it is judged by"


def test_a_dataflow_design_is_bound_by_its_slowest_layer() -> None:
    shapes = (
        LayerShape(MapShape(8, 16, 16, 1), MapShape(16, 16, 16), (3, 3), (1, 1), (1, 1)),
        LayerShape(MapShape(16, 16, 16, 1), MapShape(32, 8, 8), (3, 3), (2, 2), (1, 1)),
        LayerShape(MapShape(32, 1, 1), MapShape(10, 1, 1)),
    )
    macs = sum(s.macs for s in shapes)
    for multipliers in (8, 40, 200):
        found = dataflow(shapes, multipliers)
        assert found is not None
        assert found.multipliers <= multipliers
        assert found.interval >= macs / multipliers
        assert found.interval < 1.4 * macs / multipliers
        assert all(r * s.output.height * s.output.width <= found.interval for r, s in zip(found.reuse, shapes, strict=True))
    assert dataflow(shapes, 2) is None
