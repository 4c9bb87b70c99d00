"""Build the programs here, measure them on a machine with a GPU (which needs neither TVM nor nvcc), and write the record.

python -m benchmarks.cuda build            # writes out/cuda/<case>, and a record without timings
python -m benchmarks.cuda measure          # on the GPU machine, with out/cuda carried there
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from billhook.codegen.cuda.driver import Driver
from billhook.ir.errors import ToolchainError

from .cases import cases
from .record import write_record

HOME = Path("out") / "cuda"
_NOT_TIMED = "built and checked without a GPU; run `python -m benchmarks.cuda measure` on a machine with one"


def main() -> int:
    """Parse, build or measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=["build", "measure"])
    parser.add_argument("models", nargs="*", default=["resnet18", "vit_b_16"])
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    options = parser.parse_args()
    chosen = [c for c in cases(tuple(options.models)) if options.only in str(c)]
    if options.part == "build":
        from .build import build_case

        for case in chosen:
            if not (HOME / str(case) / "row.json").exists():
                print(json.dumps(build_case(case, _load, HOME)), flush=True)
        print(write_record(_static(), [], None, _NOT_TIMED))
        return 0
    try:
        driver = Driver()
    except ToolchainError as error:
        print(error)
        return 1
    from .measure import measure_case

    rows: list[dict[str, Any]] = []
    for case in chosen:
        rows += measure_case(case, _load, HOME, driver)
        print(write_record(_static(), rows, _gpu(driver), ""), case, flush=True)
    driver.close()
    return 0


def _load(name: str) -> torch.nn.Module:
    """A torchvision model by name, with random weights."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
    models: Any = importlib.import_module("torchvision_shim").models  # also where torchvision's compiled operators do not load
    return getattr(models, name)()


def _static() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(HOME.glob("*/row.json"))]


def _gpu(driver: Driver) -> dict[str, Any]:
    return {"name": driver.name, "capability": driver.capability, "cuda": torch.version.cuda, "driver_version": driver.version}


if __name__ == "__main__":
    raise SystemExit(main())
