"""What links are like, from what collectives were measured to take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collx.cost.prediction import GAMMA, estimate
from collx.schedule import Algorithm
from collx.topology import Link, Topology

Figures = npt.NDArray[np.float64]  # the logarithms of alpha, beta and overhead, link by link, and of gamma

PRIOR = 0.3  # how much a figure's distance from where it was counts, beside a prediction's from what was measured
_NUDGE = 0.02  # of a figure, in logarithms, by which it is seen what it does
_STRIDE = 1.5  # at most so far at once
_STEPS = 20
_ENOUGH = 1e-4  # of what is wrong: less is no gain
_STUCK = 1e5
_LEAST = 1e-13  # what counts as nought, which has no logarithm


class Observation(NamedTuple):
    """A collective of `nbytes` by an algorithm, and the seconds that the slowest rank took."""

    algorithm: Algorithm
    nbytes: int
    seconds: float


class Fitted(NamedTuple):
    """The figures of links, by their names, and the seconds to reduce a byte."""

    links: Mapping[str, Link]
    gamma: float = GAMMA


def fit(topology: Topology, observed: Sequence[Observation], prior: float = PRIOR) -> Fitted:
    """The figures by which `estimate` comes closest to what was observed on the topology; what nothing tells stays as
    it is there, for to be away from that counts as well, by `prior`.

    Least squares of the logarithms of predicted over observed, by the steps of Levenberg (1944) and Marquardt (1963):
    along one critical path a prediction is linear in the figures, so few steps do. From whole collectives, not from
    round trips as in Hoefler et al., "Low-Overhead LogGP Parameter Assessment" (IPDPS 2007): a link stands for how the
    engine moves, and as Lastovetsky et al., "Revisiting Communication Performance Models" (IPDPS 2009), show, what
    parts processors from links cannot be told from messages between two alone.
    """
    known = {level.link.name: level.link for level in topology.levels}
    first = np.log([max(figure, _LEAST) for link in known.values() for figure in link[1:4]] + [GAMMA])
    seen = np.log([each.seconds for each in observed])

    def wrong(figures: Figures) -> Figures:
        links, gamma = _fitted(known, figures)
        there = topology.with_links(links)
        told = [estimate(each.algorithm, there.size, there, each.nbytes, gamma=gamma).seconds for each in observed]
        away: Figures = np.concatenate([np.log(told) - seen, math.sqrt(prior) * (figures - first)])
        return away

    figures, away, damping = first, wrong(first), 0.1
    for _ in range(_STEPS):
        nudges = _NUDGE * np.eye(len(figures))
        slopes = np.array([(wrong(figures + nudge) - away) / _NUDGE for nudge in nudges]).T
        before = away @ away
        while damping < _STUCK:
            bent = slopes.T @ slopes + damping * np.eye(len(figures))
            tried = figures + np.clip(-np.linalg.solve(bent, slopes.T @ away), -_STRIDE, _STRIDE)
            left = wrong(tried)
            if left @ left < before:
                figures, away, damping = tried, left, damping / 3
                break
            damping *= 4
        if away @ away > before * (1 - _ENOUGH):
            break
    return _fitted(known, figures)


def _fitted(known: Mapping[str, Link], figures: Figures) -> Fitted:
    *found, gamma = np.exp(figures).tolist()
    each = zip(known.items(), zip(*[iter(found)] * 3, strict=True), strict=True)
    return Fitted(
        {
            name: link._replace(alpha=alpha, beta=beta, overhead=overhead)
            for (name, link), (alpha, beta, overhead) in each
        },
        gamma,
    )
