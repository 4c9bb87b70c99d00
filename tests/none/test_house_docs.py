"""The documentation's examples run, its links lead somewhere, and its table comes from a record."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from house import ROOT, files
from synthetic_record import synthetic_record

from billhook.report import parse_record

PAGES = [*sorted(ROOT.glob("*.md")), *files(ROOT / "docs", ".md")]
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python run\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code: str) -> None:
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measured_table", ROOT / "tools" / "measured_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_measured_table(tool: ModuleType) -> None:
    lines = tool.table(parse_record(synthetic_record())).splitlines()
    assert lines[2] == "| **billhook** | 11.8 ms (11.7 ms to 12.1 ms) | 5.81 ms (5.72 ms to 5.93 ms) |"
    assert "| accuracy | 94.73% (94.40% to 95.10%, 3 seeds) | 94.40% (94.20% to 94.70%, 3 seeds) |" in lines
    assert lines[-1].startswith("Budget 5.92 ms, measured 5.81 ms: met; allocation within 0.031% of the optimum; llvm:znver4")


def test_the_kernels_table(tool: ModuleType) -> None:
    common = {"model": "resnet18", "batch": 1, "precision": "float32", "variant": "dense"}
    rows = [
        {**common, "threads": 2, "runtimes": {"billhook": {"seconds": 0.01}, "OpenVINO": {"seconds": 0.0163}}},
        {**common, "threads": 1, "runtimes": {"billhook": {"seconds": 0.0164}}},
        {**common, "batch": 8, "threads": 1, "runtimes": {}},
    ]
    summary = {"ratio_to_best_peer": {"resnet18": {"1": 0.533, "2": 0.6135}}}
    environment = {"cpu": "EPYC", "versions": {"torch": "2.13"}, "date": "2026-11-21"}
    lines = tool.kernels_table({"rows": rows, "summary": summary, "environment": environment}).splitlines()
    assert lines[0] == "| network | threads | billhook | OpenVINO | ours / best peer |"
    assert lines[2:4] == ["| resnet18 | 1 | 16.4 | – | 0.53 |", "| resnet18 | 2 | 10.0 | 16.3 | 0.61 |"]
    assert "EPYC; torch 2.13" in lines[-1]


def test_the_table_goes_between_the_marks(tool: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = tool.replace_section(readme, "TABLE")
    assert f"{tool.BEGIN}\nTABLE\n{tool.END}" in changed
    assert tool.replace_section(changed, "TABLE") == changed
    with pytest.raises(ValueError, match="no section"):
        tool.replace_section("# other", "TABLE")
