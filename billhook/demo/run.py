"""The demo: train, compile to half the latency, recover, and compare with a uniform cut at the same measured latency."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import nn
from torch.utils.data import DataLoader

from billhook.compiler.engine import Engine
from billhook.compiler.pipeline import Compiler, make_job
from billhook.compiler.result import Result
from billhook.compiler.stages import Stages
from billhook.ir.errors import MeasureError
from billhook.ir.progress import Progress
from billhook.ir.weights import digest, read_weights, write_weights
from billhook.passes.recover import CALIBRATION_BATCHES, FinetuneConfig, finetune, recalibrate_batchnorm
from billhook.passes.recover_distill import record as record_teacher
from billhook.passes.recover_distill import recorded_teacher
from billhook.report.record import Record

from . import data, net
from .uniform import Uniform, at_latency

SEEDS = (0, 1, 2)
SHARE = 0.5
PEERS = ("torch eager", "torch eager channels-last", "torch.compile", "ONNX Runtime", "OpenVINO")
BATCH = 32
DENSE = FinetuneConfig(epochs=3, lr=2e-3, warmup=0.2, distill=0.0, precision="auto", channels_last=True)
RECOVERY = FinetuneConfig(epochs=1, lr=5e-4, distill=1.0, temperature=4.0, precision="auto", channels_last=True)
RECOVERY_PICTURES = 2400  # of 6000: six fine-tunings are most of the demo's second run
CALIBRATION_BATCH = 100  # pictures per batch of the scores and of the statistics
TRIALS = 16  # plans judged while axes are weighed: a third of the default, for a demo of minutes


@dataclass(frozen=True)
class Scores:
    """Accuracy and negative log-likelihood (nats) of one contender, by seed."""

    accuracy: tuple[float, ...]
    nll: tuple[float, ...]


def run(out: Path, *, database: Path, progress: Progress) -> Record:
    """The whole demo; writes the bundle, record.json and report.html to `out`. Raises what compiling raises."""
    stages = Stages()
    train, test = data.two_digits()
    with stages.stage("train dense"):
        dense = trained(train, database.parent, progress)
    job = make_job(
        dense,
        net.example() + 0.5,
        "llvm",
        SHARE,
        data=train.loader(CALIBRATION_BATCH),
        evaluate=None,
        finetune=None,
        loss=None,
        criterion="taylor",
        score_batches=6,
        probe_batches=1,
        peers=PEERS,
        database=database,
        threads=1,
    )
    with stages.stage("teacher"):
        teacher = Teacher(dense, train.first(RECOVERY_PICTURES), database.parent, progress)
    with Engine(job.target, database, progress) as engine:
        found: dict[str, Scores] = {}

        def recover(model: nn.Module, _dense: nn.Module) -> None:
            found["pruned"] = recovered(model, teacher, test)

        job = replace(job, finetune=recover, trials=TRIALS)
        compiler = Compiler(job, engine, progress, stages)
        result = compiler.run()
        with stages.stage("uniform baseline"):
            uniform = _uniform(compiler, result)
            recalibrate_batchnorm(uniform.pruned.model, train.loader(CALIBRATION_BATCH), CALIBRATION_BATCHES)
            found["uniform"] = recovered(uniform.pruned.model, teacher, test)
    found["dense"] = _score(dense, test)
    record = _record(result, uniform, found)
    result.save(out, record)
    return record


def trained(train: data.Pictures, cache: Path, progress: Progress) -> nn.Module:
    """The dense network, trained from scratch, or as an earlier run on the same data and options left it in `cache`."""
    model = net.build()

    def train_it() -> None:
        loader = train.loader(BATCH, shuffle=True)
        finetune(model, None, loader, DENSE, progress=lambda _, done, total: progress("train dense", done, total))

    _kept(model, cache, f"{DENSE} {BATCH} {digest({'pictures': train.pictures, **model.state_dict()})}", train_it)
    return model.eval()


def _kept(module: nn.Module, cache: Path, key: str, make: Callable[[], None]) -> None:
    """Give a module the weights that `make` gives it, or those that an earlier `make` with an equal key left in `cache`."""
    path = cache / f"demo-{hashlib.sha256(f'{key} {torch.__version__}'.encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        read_weights(path, module)
        return
    make()
    cache.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    write_weights(module, beside)
    beside.replace(path)


class Teacher(nn.Module):
    """The dense network's answers to the training pictures, [N, 100], computed once for all fine-tunings."""

    logits: torch.Tensor

    def __init__(self, dense: nn.Module, train: data.Pictures, cache: Path, progress: Progress) -> None:
        super().__init__()
        self.pictures, self.progress = train, progress
        self.register_buffer("logits", torch.zeros(len(train), net.CLASSES))

        def ask() -> None:
            self.logits.copy_(record_teacher(dense, train.loader(CALIBRATION_BATCH), progress, "auto"))

        _kept(self, cache, f"teacher {digest({'pictures': train.pictures, **dense.state_dict()})}", ask)

    def loader(self) -> DataLoader[data.Sample]:
        """Batches (pictures, (numbers, the teacher's logits)), shuffled by torch's global seed."""
        return self.pictures.loader(BATCH, shuffle=True, teacher=self.logits)


def recovered(model: nn.Module, teacher: Teacher, test: data.Pictures) -> Scores:
    """Fine-tune once per seed, from the same recalibrated cut; `model` ends with the first seed's weights."""
    start = copy.deepcopy(model.state_dict())
    scores: list[data.Score] = []
    for seed in reversed(SEEDS):  # the first seed last: its weights are the ones that stay
        model.load_state_dict(start)
        config = replace(RECOVERY, seed=seed)
        finetune(model, None, teacher.loader(), config, recorded_teacher(config), teacher.progress)
        scores.append(data.score(model, test))
    model.eval()
    return Scores(tuple(s.accuracy for s in reversed(scores)), tuple(s.nll for s in reversed(scores)))


def _score(model: nn.Module, test: data.Pictures) -> Scores:
    found = data.score(model, test)
    return Scores((found.accuracy,), (found.nll,))


def _uniform(compiler: Compiler, result: Result) -> Uniform:
    if compiler.fitter is None or compiler.contest is None:
        raise MeasureError("the compilation has not run; there is nothing to compare a uniform cut with")
    return at_latency(compiler.fitter, compiler.contest.of_build, result.fitted.measured.seconds)


def _record(result: Result, uniform: Uniform, found: dict[str, Scores]) -> Record:
    """The result's record with the accuracies of all contenders."""
    notes = (
        f"uniform keeps {uniform.share:.1%} of every width and was measured at {uniform.measured}",
        f"accuracy on 2000 test pictures; one standard error is about {100 * (0.055 * 0.945 / 2000) ** 0.5:.1f} points",
    )
    base = result.record("Two digits in half the time")
    extra = {
        "accuracy": {name: fmean(s.accuracy) for name, s in found.items()},
        "nll": {name: fmean(s.nll) for name, s in found.items()},
        "accuracy_by_seed": {name: s.accuracy for name, s in found.items()},
        "nll_by_seed": {name: s.nll for name, s in found.items()},
        "contender_s": {
            "dense": result.comparison.ours_dense.seconds,
            "pruned": result.fitted.measured.seconds,
            "uniform": uniform.measured.seconds,
        },
        "seeds": SEEDS,
        "notes": (*base.notes, *notes),
        "seconds_total": result.stages.total,
        "stages": tuple({"name": n, "seconds": s} for n, s in result.stages.seconds.items()),
    }
    return Record.model_validate({**base.model_dump(), **extra})
