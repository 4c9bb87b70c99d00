"""The bundle of a network on a board: complete, checked by simulating what is in it, and refused when altered."""

import json
from pathlib import Path

import pytest
import torch
from fpga_cases import SMALL, Block, built, samples

from billhook.cli.fpga import parse_share
from billhook.codegen.fpga.boards import find_board
from billhook.codegen.fpga.bundle import is_fpga_bundle, verify_fpga
from billhook.compiler.fpga import FpgaOptions, compile_fpga
from billhook.ir.errors import BundleError, OptionError


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.cache.mkdir("fpga"))  # pyright: ignore[reportOptionalMemberAccess]


@pytest.fixture(scope="module")
def bundle(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built(SMALL, cache)  # or skip
    torch.manual_seed(0)
    data = [(torch.cat(samples()), torch.zeros(4, dtype=torch.long))]
    result = compile_fpga(Block().eval(), samples()[0], FpgaOptions(find_board("ulx3s"), 0.7, SMALL, data), cache)
    assert result.checked is not None
    assert result.checked.wrong == 0
    folder = tmp_path_factory.mktemp("fpga") / "bundle"
    result.save(folder)
    return folder


def test_a_bundle_is_complete_and_says_what_its_figures_are(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in (
        "rtl/accelerator.v",
        "constraints/ulx3s.lpf",
        "driver/billhook_fpga.c",
        "driver/linux_uio.c",
        "program/program.bin",
        "plan.json",
    ):
        assert name in manifest["files"]
    assert manifest["clock"] == {"mhz": 50.0, "is": "assumed"}
    assert manifest["cycles"]["simulated"] > 0
    assert "not run on a board" in (bundle / "README.md").read_text()


def test_a_bundle_is_verified_by_simulating_its_own_files(bundle: Path, cache: Path) -> None:
    assert is_fpga_bundle(bundle)
    found = verify_fpga(bundle, cache)
    assert found.ok
    assert found.outputs == 5
    assert found.cycles > 0


def test_an_altered_file_is_named(bundle: Path, cache: Path) -> None:
    path = bundle / "rtl" / "storer.v"
    text = path.read_text()
    path.write_text(text.replace("+ half", ""))
    with pytest.raises(BundleError, match=r"storer\.v: was altered"):
        verify_fpga(bundle, cache)
    path.write_text(text)


@pytest.mark.parametrize(("text", "value"), [("50%", 0.5), ("0.25", 0.25), ("100%", 1.0)])
def test_shares_are_read(text: str, value: float) -> None:
    assert parse_share(text) == value


@pytest.mark.parametrize("text", ["half", "0", "150%"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--cycles"):
        parse_share(text)
