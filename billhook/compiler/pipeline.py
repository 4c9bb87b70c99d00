"""compile: model, example inputs, target and budget in; a smaller trainable model and tuned kernels out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.nn import functional as F

from billhook.codegen.backend import backend_of, target_named
from billhook.costmodel.network_cost import NetworkCost
from billhook.devices import OWN, Device, find_device
from billhook.goals import HALF, WHOLE_MEMORY, Goals, make_goals
from billhook.ir.capture import capture
from billhook.ir.errors import DataError, OptionError
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.progress import Progress
from billhook.ir.target import Target
from billhook.options import Budget
from billhook.passes.allocate import solve
from billhook.passes.allocation_presets import Preset
from billhook.passes.analyse import ANALYSIS
from billhook.passes.batches import Loader, Loss
from billhook.passes.block_sparsity import masked
from billhook.passes.candidate_sizes import candidate_sizes, dense_sizes, with_dense
from billhook.passes.constraints import Constraint, parse_constraint, uniform_groups
from billhook.passes.cut import cut_graph
from billhook.passes.judge import Judge, repair
from billhook.passes.oracle import cut_error
from billhook.passes.plan_choice import best_ranked
from billhook.passes.probe import probed_worth
from billhook.passes.prune import Pruned
from billhook.passes.recover import Finetune, FinetuneConfig, recover
from billhook.passes.saliency import Data, Floats, Scores, retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem
from billhook.passes.worth_descent import TRIALS, check_trials

from .bench import DeviceBench, LocalBench, open_device
from .budget import BudgetedLatency
from .compare import Contest, KernelTime, kernel_times
from .device_contest import DeviceContest, device_kernel_times
from .engine import Build, Engine
from .fit import Fitted, Fitter, Rule, Values, fit, fit_fastest, uniform_at
from .implants import choose_implants, priced
from .judged import JudgedRule
from .memory import MemoryRule
from .objective import Attained, LeastLatency, LeastMemory
from .outcome import Sparse
from .preset import chosen_preset, measured_loss, preset_rule
from .result import Result
from .roofline import measure_peaks
from .sparsify import Sparsifier, check_sparsity, widths_budget
from .stages import Stages
from .weights import WeightLimit

PROBES = 2  # each round of probes is around the plan of the one before, the first around a uniform cut


@dataclass(frozen=True)
class Job:
    """What to compile, and how. Frozen: the same job on the same machine gives the same plan."""

    model: nn.Module
    example: tuple[tuple[Any, ...], Mapping[str, Any]]
    target: Target
    goals: Goals
    data: Loader | None
    evaluate: Callable[[nn.Module], float] | None
    finetune: FinetuneConfig | Finetune | None
    loss: Loss
    criterion: str
    score_batches: int
    probe_batches: int
    peers: Sequence[str]
    database: Path
    constraints: tuple[Constraint, ...] = ()
    device: Device | None = None
    precision: str = "fp32"
    preset: Preset | None = None
    sparsity: str | None = None
    trials: int = TRIALS  # plans judged while axes are weighed

    @property
    def budget(self) -> Budget:
        """Of latency."""
        return self.goals.latency


class Compiler:
    """One compilation: its engine, its program, and what the stages have found so far."""

    def __init__(self, job: Job, engine: Engine, progress: Progress, stages: Stages | None = None) -> None:
        self.job, self.engine, self.progress = job, engine, progress
        self.stages = stages or Stages()
        with self.stages.stage("capture and axes"):
            traced = capture(job.model, job.example[0], job.example[1])
            self.program, _ = run_passes(traced, ANALYSIS)
            self.candidates = candidate_sizes(self.program, job.target, constraints=job.constraints)
            self.uniform = uniform_groups(self.program, job.constraints)
        self.fitter: Fitter | None = None
        self.contest: Contest | DeviceContest | None = None
        self.memory: MemoryRule | None = None
        self.least: LeastLatency | LeastMemory | None = None
        self.weights: WeightLimit | None = None

    def run(self) -> Result:
        """All stages. Raises BudgetError, DataError, MeasureError."""
        with self.stages.stage("kernel costs"):
            cost = self.engine.network_cost(self.program, with_dense(self.program, self.candidates))
            cost.prepare(self.progress)
        with self.stages.stage("build dense"):
            dense = self.engine.build(cut_graph(self.program, Plan({})), self.program.example)
            contest = self._contest(dense)
        with self.stages.stage("measure dense"):
            comparison = contest.dense()
            budget = self.job.budget.seconds(comparison.best_dense.seconds)
            widths = budget if self.job.sparsity is None else widths_budget(budget, comparison.ours_dense.seconds)
        with self.stages.stage("saliency"):
            whole = cost.predict(dense_sizes(self.program))
            seconds = self._share(widths / comparison.ours_dense.seconds) * whole.seconds, whole.seconds
            values = self.values(cost, seconds)
        cost, values = self._implanted(cost, values, seconds)
        fitter = self._fitter(values, cost, dense)
        if self.program.factored:
            fitter.pairs.append((whole, comparison.ours_dense))
        else:
            fitter.learn({}, comparison.ours_dense)
        with self.stages.stage("allocate, cut, build, measure"):
            fitted = self._fit(fitter, widths, contest)
        self._repair(fitted.pruned)
        fitted, sparse = self._sparse(fitted, budget, contest)
        with self.stages.stage("recover"), masked(fitted.pruned.model, sparse.chosen):
            recover(fitted.pruned.model, self.job.model, self.job.data, self.job.finetune, self.job.loss, self.progress)
        self.fitter, self.contest = fitter, contest
        return self.finish(fitted, contest, sparse)

    def _sparse(self, fitted: Fitted, budget: float, contest: Contest | DeviceContest) -> tuple[Fitted, Sparse]:
        """Where the job asks for it: the cut network with layers made sparse to meet the budget (seconds)."""
        job = self.job
        if job.sparsity is None:
            return fitted, Sparse()
        with self.stages.stage("choose sparse layers"):
            sparsifier = Sparsifier(self.engine, self.program, job.loss, job.data, job.sparsity == "patterns", contest.of_build)
            found = sparsifier.run(fitted.pruned, fitted.measured, budget)
        fitted = replace(fitted, predicted=found.predicted, measured=found.measured, build=found.build)
        return fitted, Sparse(found.chosen, found.layers)

    def _contest(self, dense: Build) -> Contest | DeviceContest:
        if isinstance(self.engine.bench, DeviceBench):
            return DeviceContest(self.program, dense, self.job.peers, self.engine.bench)
        contest = Contest(self.program, dense, self.job.peers if self._on_processor else (), self.job.target.threads, self.progress)
        if not self._on_processor:
            contest.absent |= dict.fromkeys(self.job.peers, f"it does not run on target {self.job.target.kind}")
        return contest

    @property
    def _on_processor(self) -> bool:
        """Whether kernels run on this machine's processor, as the peers do."""
        return self.engine.backend.name == "llvm"

    def values(self, cost: NetworkCost, seconds: tuple[float, float]) -> Values:
        """Scores by the job's criterion; with data, the axes are weighed by probes of the loss, as far as that loses less.

        seconds: predicted, to aim at, and of the dense network. The first probes are around a uniform cut to that goal, the next around the
        plan found by them. Of the plans by plain scores, probes, mixtures of the two and scores taken anew on the way the one that loses
        least once it is repaired decides (decision 0018), and how its axes are weighed follows from such losses too (decision 0026).
        """
        job = self.job
        data = Data(job.data, job.loss, job.score_batches, self.progress) if job.data is not None else None
        scores = score_axes(job.criterion, self.program, cut_graph(self.program, Plan({})), data)
        if data is None or (job.preset is not None and not job.preset.probes):
            return Values(scores, {name: retained(s) for name, s in scores.items()})
        base = uniform_at(cost, self.candidates, seconds[0])
        chosen = self._chooser(cost)
        for _ in range(PROBES - 1):
            base |= chosen(self._probed(scores, base), seconds[0])
        probed, judge = self._probed(scores, base), Judge(self.program, Data(data.loader, job.loss, job.probe_batches))
        best = best_ranked(job.criterion, self.program, scores, probed, chosen, seconds, data, judge, job.trials)
        return Values(best.scores, best.worth, judge)

    def _implanted(self, cost: NetworkCost, values: Values, seconds: tuple[float, float]) -> tuple[NetworkCost, Values]:
        """Where the job asks for it: layers factored, if the plan that then comes out loses less once it is repaired."""
        job = self.job
        if not job.goals.low_rank or job.data is None:
            return cost, values
        with self.stages.stage("choose low-rank layers"):
            data = Data(job.data, job.loss, job.score_batches, self.progress), Data(job.data, job.loss, job.probe_batches)
            before = self.program, self.candidates
            found = choose_implants(self.engine, *before, cost, job.constraints, job.criterion, data, seconds[0])
            if not found.layers:
                return cost, values
            lost = self._lost(cost, values, seconds[0])
            self.program = found.program
            self.candidates, thin = priced(self.engine, self.program, job.constraints)
            weighed = self.values(thin, seconds)
            if self._lost(thin, weighed, seconds[0]) < lost:
                return thin, weighed
        self.program, self.candidates = before
        return cost, values

    def _chooser(self, cost: NetworkCost) -> Callable[[Mapping[str, Floats], float], Mapping[str, int]]:
        """The sizes that retain the most of a worth within so many predicted seconds."""
        tables = cost.tables(self.candidates)

        def chosen(worth: Mapping[str, Floats], seconds: float) -> Mapping[str, int]:
            return solve(width_problem(self.program, worth, self.candidates, tables, uniform=self.uniform), seconds).sizes

        return chosen

    def _lost(self, cost: NetworkCost, values: Values, goal: float) -> float:
        """The loss of the plan for `goal` seconds once it is repaired."""
        assert values.judge is not None
        return values.judge(values.scores, self._chooser(cost)(values.worth, goal))

    def _repair(self, pruned: Pruned) -> None:
        """By our default, with data: the readers of what was cut are solved anew, before any training."""
        job = self.job
        if job.data is not None and (job.preset is None or job.preset.probes):
            with self.stages.stage("repair"):
                repair(self.program, pruned, Data(job.data, job.loss, job.score_batches, self.progress))

    def _share(self, share: float) -> float:
        """Of the dense latency, where axes are weighed: what is asked for, or half where the latency is what is sought."""
        return min(share, HALF.amount) if self.job.goals.objective.name == "latency" else share

    def _fitter(self, values: Values, cost: NetworkCost, dense: Build) -> Fitter:
        fixed, goals = (self.engine, self.program, values, cost, self.candidates, self.uniform), self.job.goals
        if goals.weights is not None:
            self.weights = WeightLimit(self.engine, self.program, self.candidates, dense.network, goals.weights)
        budgets = () if self.weights is None else (self.weights.budget,)
        rule = self._rule(values, cost)
        if goals.memory is None and goals.objective.name != "memory":
            return Fitter(*fixed, rule, budgets=budgets)
        self.memory = MemoryRule(self.engine, self.program, values.scores, self.candidates, goals.memory or WHOLE_MEMORY, rule)
        if goals.objective.name != "memory":
            return Fitter(*fixed, self.memory, self.memory.limited, budgets)
        self.least = LeastMemory(goals.objective, self.memory)
        return Fitter(*fixed, self.least, budgets=budgets)

    def _fit(self, fitter: Fitter, budget: float, contest: Contest | DeviceContest) -> Fitted:
        """The closed loop for the job's objective."""
        if isinstance(self.least, LeastLatency):
            return fit_fastest(fitter, budget, contest.of_build)
        return fit(fitter, budget, contest.of_build, self.least.gain if isinstance(self.least, LeastMemory) else None)

    def _rule(self, values: Values, cost: NetworkCost) -> Rule:
        """How sizes are chosen: by our exact allocation, or as the job's preset does."""
        job = self.job
        if job.goals.objective.name == "latency":
            self.least = LeastLatency(job.goals.objective)
            return self.least
        if values.judge is not None:
            return JudgedRule(values.scores, values.judge)
        if job.preset is None:
            return solve
        loss = None if job.data is None else measured_loss(self.program, values.scores, job.data, job.loss, job.probe_batches)
        tables = cost.tables(self.candidates)
        return preset_rule(job.preset, self.program, values, self.candidates, tables, self.uniform, job.target, loss)

    def _probed(self, scores: Scores, base: Mapping[str, int]) -> dict[str, Floats]:
        """Worth of the axes by probes around sizes `base`."""
        job = self.job
        assert job.data is not None
        return probed_worth(self.program, scores, self.candidates, base, job.data, job.loss, job.probe_batches, self.progress)

    def finish(self, fitted: Fitted, contest: Contest | DeviceContest, sparse: Sparse) -> Result:
        """Build with the recovered weights, check against torch, and measure everything against everything."""
        with self.stages.stage("build result"):
            fitted.pruned.model.eval()
            build = self.engine.build(fitted.pruned.program.graph, self.program.example, sparse.chosen)
        with self.stages.stage("measure result"):
            comparison = contest.final(fitted.pruned, build)
        budget = self.job.budget.seconds(comparison.best_dense.seconds)
        return Result(
            budget=self.job.budget,
            latency=BudgetedLatency(budget, fitted.predicted.scaled(contest.drift(comparison)), comparison.ours_pruned),
            target=self.job.target,
            program=self.program,
            pruned=fitted.pruned,
            fitted=fitted,
            build=build,
            comparison=comparison,
            kernels=self._kernel_times(build, contest),
            oracle_error=cut_error(self.program, fitted.plan, double=False),
            quality=self._quality(fitted.pruned.model),
            stages=self.stages,
            reuse=self.engine.note_run(type(self.job.model).__qualname__),
            processor=self.engine.bench.processor,
            peaks=measure_peaks(self.job.target) if self._on_processor and not isinstance(contest, DeviceContest) else None,
            noisy_kernels=len(self.engine.costs.noisy),
            precision=self.engine.precision,
            sparse=sparse,
            memory=self.memory.report(build.network) if self.memory is not None else None,
            weights=self.weights.report(build.network) if self.weights is not None else None,
            attained=self._attained(fitted),
        )

    def _attained(self, fitted: Fitted) -> Attained | None:
        if self.least is None or self.fitter is None:
            return None
        return self.least.attained(self.fitter.problem(), fitted.solution.sizes)

    def _kernel_times(self, build: Build, contest: Contest | DeviceContest) -> tuple[KernelTime, ...]:
        if isinstance(contest, DeviceContest):
            return device_kernel_times(build, self.engine)
        return kernel_times(build, contest.inputs, self.engine)

    def _quality(self, pruned: nn.Module) -> dict[str, float]:
        if self.job.evaluate is None:
            return {}
        return {"dense": float(self.job.evaluate(self.job.model)), "pruned": float(self.job.evaluate(pruned))}


def make_job(
    model: nn.Module,
    example_inputs: Any,
    target: str | Target,
    latency: Goals | Budget | float | str,
    *,
    data: Loader | None,
    evaluate: Callable[[nn.Module], float] | None,
    finetune: FinetuneConfig | Finetune | None,
    loss: Loss | None,
    criterion: str | None,
    score_batches: int,
    probe_batches: int,
    peers: Sequence[str],
    database: Path,
    threads: int,
    constraints: Sequence[str | Constraint] = (),
    device: str | None = None,
    precision: str = "fp32",
    preset: str | None = None,
    sparsity: str | None = None,
    trials: int = TRIALS,
) -> Job:
    """Check and complete the options; a device is asked what it is. latency: or all goals. Raises OptionError, DataError, DeviceError."""
    _check_data(finetune, data, low_rank=isinstance(latency, Goals) and latency.low_rank)
    method, scored_by = chosen_preset(preset, criterion, data=data is not None)  # a wrong name is said at once, not after minutes
    remote = find_device(database, device) if device is not None else None
    machine = find_target(target, threads) if remote is None else device_target(remote, target, threads)
    return Job(
        *(model, (_arguments(example_inputs), {}), machine, latency if isinstance(latency, Goals) else make_goals(latency)),
        *(data, evaluate, finetune, loss or F.cross_entropy, scored_by),
        *(score_batches, probe_batches, tuple(peers), database),
        *(tuple(parse_constraint(c, "constraints") for c in constraints), remote, _precision(precision, remote), method),
        *(check_sparsity(sparsity, machine, precision), check_trials(trials)),
    )


def _check_data(finetune: FinetuneConfig | Finetune | None, data: Loader | None, *, low_rank: bool) -> None:
    if low_rank and data is None:
        raise DataError("low_rank: layers are factored by what they see; pass data")
    if isinstance(finetune, FinetuneConfig) and data is None:
        raise DataError("fine-tuning needs data; pass data= or a function of your own as finetune=")


def _arguments(given: Any) -> tuple[Any, ...]:
    """Example inputs as the model's arguments."""
    return cast("tuple[Any, ...]", given) if isinstance(given, tuple) else (given,)


def _precision(name: str, device: Device | None) -> str:
    """The name, if it is one. The engine asks the target for what it needs."""
    if device is not None and name != "fp32":
        raise OptionError(f"--precision {name}: devices run float32 networks only so far; leave out --device or use fp32")
    return name


def find_target(target: str | Target, threads: int = 1) -> Target:
    """A target by name: "llvm" or "cpu" is this machine's processor, "opencl" its GPU. Raises OptionError, ToolchainError."""
    return target if isinstance(target, Target) else target_named(target, threads)


def device_target(device: Device, target: str | Target, threads: int) -> Target:
    """The target of a device: its own, unless another one is asked for. Raises OptionError, DeviceError."""
    if isinstance(target, Target):
        return target
    if target not in OWN:
        raise OptionError(f"target {target!r} is not supported yet on a device; leave it out, and it is device {device.name}'s processor")
    with open_device(device, threads=threads) as bench:
        return bench.target


def run_job(job: Job, progress: Progress) -> Result:
    """Compile one job."""
    if job.device is None and backend_of(job.target).provenance is None:
        raise OptionError(
            f"target {job.target} cannot be measured here: static estimates and emulation give no milliseconds for a budget;"
            " add --device for a board that runs the RPC server (docs/targets.md)"
        )
    bench = open_device(job.device, job.target) if job.device is not None else LocalBench(job.target)
    with closing(bench), Engine(job.target, job.database, progress, bench=bench, precision=job.precision, data=job.data) as engine:
        return Compiler(job, engine, progress).run()
