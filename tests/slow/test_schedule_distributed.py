"""Two processes under torchrun (gloo) fine-tune under one schedule, and agree on every mask without exchanging any."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
import billhook as bh
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.ir.target import Target
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.schedule_budget import LatencyBudget
from billhook.passes.schedule_steps import SoftMask
from billhook.passes.schedule_training import MaskedTraining

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 3))
program = bh.trace(model, torch.randn(1, 12))
candidates = candidate_sizes(program, Target())
(tables,) = static_tables(network_kernels(program, candidates, Target()), candidates, Roofline())
budget = LatencyBudget(program, candidates, tables, 1.0)
budget.goal = 0.8 * budget.dense
accelerator = Accelerator(cpu=True)
data = TensorDataset(torch.randn(64, 12), torch.randint(3, (64,)))
loader = DataLoader(data, 8)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
wrapped, wrapped_optimizer, loader = accelerator.prepare(model, optimizer, loader)
with MaskedTraining(program, wrapped, optimizer, SoftMask(every=2), steps=8, budget=budget) as training:
    for _ in range(8 // len(loader)):
        for x, y in loader:
            wrapped_optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(wrapped(x), y))
            wrapped_optimizer.step()
    kept = {name: list(indices) for name, indices in training.plan().kept.items()}
    seconds = budget.seconds(training.plan().sizes()) / budget.goal
weights = float(sum(p.double().sum() for p in model.parameters()))
with open(f"{sys.argv[1]}/{accelerator.process_index}.json", "w") as file:
    json.dump({"kept": kept, "weights": weights, "steps": training.step, "processes": accelerator.num_processes, "of_goal": seconds}, file)
"""


@pytest.mark.timeout(280)
def test_two_processes_agree(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=270, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["processes"] == 2
    assert first["steps"] == 8
    assert first["kept"]
    assert first["of_goal"] <= 1
