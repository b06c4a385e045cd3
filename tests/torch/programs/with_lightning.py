"""Lightning, told the backend by name: torchrun --nproc-per-node 2 -m tests.torch.programs.with_lightning collx."""

from __future__ import annotations

import os
import sys
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.torch.programs.training import FEATURES, LOSS, model, sgd


class Net(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = model(torch.float32)

    def training_step(self, batch: Any, _: int) -> Tensor:
        inputs, targets = batch
        loss: Tensor = LOSS(self.net(inputs), targets)
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return sgd(self.parameters())


def main(backend: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(64, FEATURES), torch.randn(64, 4))
    trainer = lightning.Trainer(
        accelerator="cpu", devices=int(os.environ["LOCAL_WORLD_SIZE"]), max_epochs=3,
        strategy=DDPStrategy(process_group_backend=backend),
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Net(), DataLoader(data, batch_size=8))
    assert dist.get_backend() == backend
    if trainer.is_global_zero:
        print(
            f"# loss {trainer.callback_metrics['loss'].item():.6f} on {trainer.world_size} ranks, {backend}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "collx")
