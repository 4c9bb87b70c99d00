"""Place and route: the clock from nextpnr's report, its own words where there is none, and boards that say whose clock it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fpga.summary import boards, routed
from billhook.codegen.fpga.place import routed_clock
from billhook.ir.errors import ToolchainError


def test_the_slowest_clock_of_the_report_counts(tmp_path: Path) -> None:
    clocks = {"clk": {"achieved": 61.5, "constraint": 80.0}, "other": {"achieved": 90.0, "constraint": 80.0}}
    (tmp_path / "report.json").write_text(json.dumps({"fmax": clocks}))
    assert routed_clock(tmp_path, 0, "4x4") == 61.5


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (255, "Info: packing\nERROR: no more DP16KD left\nInfo: bye\n", "fails on 4x4: ERROR: no more DP16KD left"),
        (-24, "Info: routing\nInfo: iter 12: 60 overused\n", "stopped by signal 24 on 4x4, having said last: Info: iter 12: 60 overused"),
        (1, "", "nothing said"),
    ],
)
def test_where_it_does_not_end_it_says_how_far_it_got(tmp_path: Path, status: int, said: str, message: str) -> None:
    (tmp_path / "nextpnr.log").write_text(said)
    with pytest.raises(ToolchainError, match=message):
        routed_clock(tmp_path, status, "4x4")


def board(name: str, rows: int, columns: int) -> dict[str, Any]:
    accelerator, counts = {"rows": rows, "columns": columns}, {"dsp": 1, "bram": 1, "lut": 1, "cycles": 1}
    place = {"part": "board", "network": "resnet8", "board": name, "array": f"{rows}x{columns}", "accelerator": accelerator}
    return {**place, **counts, "clock_mhz": 80.0, "clock_is": "assumed"}


def test_only_the_array_that_was_routed_has_a_routed_clock() -> None:
    row = {"part": "place", "design": "16x8", "accelerator": {"rows": 16, "columns": 8}, "mhz": 51.23, "tools": "nextpnr 1 with router2"}
    found = boards([row, board("ulx3s", 16, 8), board("pynq-z2", 16, 8)])
    assert found["ulx3s"]["clock"] == 51.2
    assert found["ulx3s"]["clock_is"] == "placed and routed: 16x8, out of context, nextpnr 1 with router2"
    assert found["pynq-z2"]["clock_is"] == "assumed", "another family"
    assert boards([row, board("ulx3s", 8, 8)])["ulx3s"]["clock_is"] == "assumed"
    stopped = {**row, "mhz": None, "why": "stopped"}
    assert boards([stopped, board("ulx3s", 16, 8)])["ulx3s"]["clock_is"] == "assumed"
    assert routed(stopped) == {"mhz": None, "why": "stopped"}
