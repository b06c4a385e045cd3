"""What the torch_*.py examples share: their arguments, the process group, and what becomes of the losses.

    python examples/torch_training.py losses.png

trains all of them on two ranks, by collx and by Gloo, and draws both's losses.

An example hands `main` a function that trains and yields the loss of each step, the same on every rank.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist

EXAMPLES = ("torch_ddp", "torch_fsdp2", "torch_tensor_parallel", "torch_pipeline", "torch_moe")


def main(train: Callable[[], Iterator[float]]) -> None:
    """Train on the ranks that the launcher has started."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="collx", help="of torch.distributed: collx (the default), gloo, ...")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--save", type=Path, metavar="FILE", help="where rank 0 writes the losses, as JSON")
    asked = parser.parse_args()
    dist.init_process_group(asked.backend)
    losses = run(train, asked.steps)
    if dist.get_rank() == 0 and asked.save:
        asked.save.write_text(json.dumps(losses))
    dist.destroy_process_group()


def run(train: Callable[[], Iterator[float]], steps: int) -> list[float]:
    """The losses of so many steps, from the same beginning every time; rank 0 prints some."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # all ranks are on one host here
    losses = []
    for step, loss in enumerate(islice(train(), steps), 1):
        losses.append(loss)
        if dist.get_rank() == 0 and (step in (1, steps) or step % 25 == 0):
            print(f"step {step:3}: loss {loss:.6f}", flush=True)
    return losses


def mean(loss: torch.Tensor) -> float:
    """The mean of all ranks' losses."""
    total = loss.detach().clone()
    dist.all_reduce(total)
    size: int = dist.get_world_size()
    return float(total) / size


def draw(picture: Path) -> None:
    """Both backends' losses, a panel for each example."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(EXAMPLES), figsize=(12, 2.6), layout="constrained")
    for panel, example in zip(panels, EXAMPLES, strict=True):
        gloo, collx = _losses(example, "gloo"), _losses(example, "collx")
        panel.semilogy(gloo, color="tab:orange", linewidth=3, alpha=0.5, label="gloo")
        panel.semilogy(collx, color="tab:blue", linewidth=0.8, label="collx")
        furthest = max(abs(a - b) / abs(b) for a, b in zip(collx, gloo, strict=True))
        panel.set_title(f"{example}\nfurthest apart: {furthest:.1e}", fontsize=9)
        panel.set_xlabel("step")
    panels[0].set_ylabel("loss")
    panels[0].legend()
    figure.savefig(picture, dpi=66)


def _losses(example: str, backend: str) -> list[float]:
    """As two ranks under torchrun find them."""
    program = Path(__file__).with_name(f"{example}.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    with tempfile.TemporaryDirectory() as folder:
        save = Path(folder, "losses.json")
        subprocess.run([*launcher, str(program), "--backend", backend, "--save", str(save)], check=True)
        losses: list[float] = json.loads(save.read_text())
        return losses


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
