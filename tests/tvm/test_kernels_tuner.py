"""What to try for a workload without a template, where tuning it fails."""

from pathlib import Path

from kernel_workloads import WorkloadBuilder, wrong

from billhook.codegen import lower
from billhook.codegen.host import host_target
from billhook.codegen.tuner import Tuner
from billhook.ir.workload import Workload


def _attention_by_bias_alone() -> Workload:
    """Swin's attention with queries and keys of width 0: what is left is the softmax of a bias."""
    b = WorkloadBuilder()
    q, k, v, bias = b.tensor(4, 3, 9, 0), b.tensor(4, 3, 9, 0), b.tensor(4, 3, 9, 8), b.tensor(1, 3, 9, 9)
    b.call("aten.scaled_dot_product_attention.default", q, k, v, bias)
    return b.finish(4, 3, 9, 8)


def test_what_metaschedule_cannot_draw_stays_untuned(tmp_path: Path) -> None:
    target, workload = host_target(), _attention_by_bias_alone()
    found = Tuner(target, 2, tmp_path).candidates(workload)
    assert found == lower.candidates(workload, target)
    assert wrong(workload, found[0], target) is None
