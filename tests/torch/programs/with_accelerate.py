"""Accelerate, in a group of the backend: torchrun --nproc-per-node 2 -m tests.torch.programs.with_accelerate collx."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from tests.torch.programs.training import FEATURES, LOSS, model, sgd


def main(backend: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(backend)  # Accelerate takes it; its PartialState(backend=) knows a fixed list
    accelerator = Accelerator(cpu=True)
    assert dist.get_backend() == backend
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(64, FEATURES), torch.randn(64, 4))
    net: Any = model(torch.float32)
    net, optimizer, loader = accelerator.prepare(net, sgd(net.parameters()), DataLoader(data, batch_size=8))
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = LOSS(net(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
    mean = accelerator.gather(loss.detach().reshape(1)).mean().item()
    if accelerator.is_main_process:
        print(f"# loss {mean:.6f} on {accelerator.num_processes} ranks, {backend}", flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "collx")
