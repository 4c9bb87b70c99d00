"""The doctor's probe of TVM runs with the real TVM."""

from pathlib import Path

from billhook import doctor


def test_tvm_loads_and_serialises(tmp_path: Path) -> None:
    found = {f.name: f for f in doctor.examine(tmp_path / "db")}["TVM at work"]
    assert found.ok, found.found
    assert found.found.startswith("makes code for ")
