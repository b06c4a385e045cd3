"""What a collective costs on a topology; see docs/cost.md."""

from collx.cost.network import Network, Port, Ports, Route, loads
from collx.cost.prediction import GAMMA, Prediction, contenders, estimate, predict

__all__ = ["GAMMA", "Network", "Port", "Ports", "Prediction", "Route", "contenders", "estimate", "loads", "predict"]
