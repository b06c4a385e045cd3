"""Training steps under DistributedDataParallel: the same model on the same data, once on each backend, with ranks that
only meet once in a step, and alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
import torch.distributed as dist  # type: ignore[import-not-found, unused-ignore]
from torch import nn  # type: ignore[import-not-found, unused-ignore]
from torch.nn.parallel import DistributedDataParallel  # type: ignore[import-not-found, unused-ignore]

from collx.perf import standing
from collx.perf.torch_job import Job

_COMPARED = 10  # steps whose losses are compared


class Transformer(nn.Module):  # type: ignore[misc, unused-ignore]
    """Four layers of width 256 over bytes, 3.3 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.embed, self.out = nn.Embedding(256, 256), nn.Linear(256, 256)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def forward(self, tokens: Any) -> Any:
        return self.out(self.layers(self.embed(tokens))).transpose(1, 2)


def _many_layers() -> Any:
    return nn.Sequential(*(layer for _ in range(200) for layer in (nn.Linear(64, 64), nn.ReLU())))


def _tokens(sequences: int) -> tuple[Any, Any]:
    return torch.randint(256, (sequences, 64)), torch.randint(256, (sequences, 64))


# By name: the model, a batch of its own for every rank, the loss.
MODELS: dict[str, tuple[Callable[[], Any], Callable[[], tuple[Any, Any]], Callable[[Any, Any], Any]]] = {
    "transformer": (Transformer, lambda: _tokens(2), nn.functional.cross_entropy),
    "many layers": (_many_layers, lambda: (torch.randn(16, 64), torch.randn(16, 64)), nn.functional.mse_loss),
}


class Training:
    """A model and its optimizer, and one batch of this rank's."""

    def __init__(self, name: str, rank: int, group: Any = None) -> None:
        make, batch, self._loss = MODELS[name]
        torch.manual_seed(1)
        model = make()
        self._model = model if group is None else DistributedDataParallel(model, process_group=group)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01)
        torch.manual_seed(2 + rank)
        self._x, self._y = batch()

    def parameters(self) -> Any:
        return self._model.parameters()

    def step(self) -> Any:
        self._optimizer.zero_grad()
        loss = self._loss(self._model(self._x), self._y)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def only_meet(self) -> None:
        """From now on send no gradients: ranks wait for each other in a barrier of Gloo's, once in a step."""
        self._model.register_comm_hook(None, _meet)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()


def _meet(_: object, bucket: Any) -> Any:
    """A communication hook without communication: the least that a step takes by any backend."""
    if bucket.is_last():
        dist.barrier()
    met = torch.futures.Future()
    met.set_result(bucket.buffer())
    return met


_meet.__annotations__ = {}  # torch takes none that are strings


def steps(job: Job, name: str, seconds: float) -> dict[str, Any]:
    """The figures of a step of this model by backend, with ranks that only meet, and alone; and by how much the losses
    of both backends differ at most on any rank."""
    trainings = {backend: Training(name, job.rank, group) for backend, group in job.groups.items()}
    ours, theirs = ([float(training.step()) for _ in range(_COMPARED)] for training in trainings.values())
    (differing,) = job.longest([max(abs(a - b) for a, b in zip(ours, theirs, strict=True))])
    trainings["meeting"] = Training(name, job.rank, job.groups["collx"])
    trainings["meeting"].only_meet()
    trainings["alone"] = Training(name, job.rank)
    rounds = job.rounds({who: training.steps for who, training in trainings.items()}, seconds)
    about = f"{sum(each.numel() for each in trainings['gloo'].parameters()) / 1e6:.1f} M parameters"
    return {"model": name, "about": about, "differing": differing, "figures": standing.figures(rounds)}
