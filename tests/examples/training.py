"""The torch examples one after another on the ranks of one job, each on two backends: writes the losses as JSON.

torchrun ... training.py STEPS FILE
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch.distributed as dist

EXAMPLES = Path(__file__).parents[2] / "examples"


def main() -> None:
    steps, file = sys.argv[1:]
    sys.path.insert(0, str(EXAMPLES))
    training = importlib.import_module("torch_training")
    losses: dict[str, dict[str, list[float]]] = {}
    for backend in ("gloo", "collx"):
        dist.init_process_group(backend)
        for name in training.EXAMPLES:
            example = importlib.import_module(name)
            losses.setdefault(name, {})[backend] = training.run(example.train, int(steps))
        if dist.get_rank() == 0:
            Path(file).write_text(json.dumps(losses))
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
