"""MetaSchedule finds a schedule under a trial budget, and what it finds is right on the tuned width and on others."""

from pathlib import Path

from kernel_workloads import WorkloadBuilder, wrong

from billhook.codegen import metaschedule
from billhook.codegen.cpu.candidate import candidate_from_json, candidate_to_json
from billhook.codegen.host import host_target
from billhook.ir.workload import Workload


def _grouped(out: int) -> Workload:
    b = WorkloadBuilder()
    x, weight, bias = b.tensor(1, 32, 7, 7), b.parameter(out, 8, 3, 3), b.parameter(out)
    y = b.call("aten.conv2d.default", x, weight, bias, (1, 1), (1, 1), (1, 1), 4)
    b.call("aten.relu.default", y)
    return b.finish(1, out, 7, 7)


def test_tuned_schedule_is_right_and_replays_on_another_width(tmp_path: Path) -> None:
    target = host_target()
    tuned = metaschedule.tune(_grouped(64), target, 4, tmp_path)
    assert tuned.schedule
    assert candidate_from_json(candidate_to_json(tuned)) == tuned
    assert wrong(_grouped(64), tuned, target) is None
    replayed = metaschedule.replay(tuned, _grouped(48), target)
    assert replayed is None or wrong(_grouped(48), replayed, target) is None
    assert [p.name for p in tmp_path.iterdir()] == [str(target).replace(":", "-").replace("/", "-")]
