"""How the reference engine's ranks come to one verdict, and the survivors to one group, over a `Board`."""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable
from typing import Any

from collx.errors import AbortedError, CollxError, MismatchError, RankFailedError, RevokedError, TimeoutError
from collx.transports.base import Board
from collx.transports.verdict import FAILED, GAVE_UP, MISMATCH, REVOKED, Verdict, named
from collx.transports.waiting import Pause

VERDICT = "verdict"


class Judge:
    """Rank `rank`'s way to the verdict on its communicator."""

    def __init__(self, board: Board, rank: int) -> None:
        self._board, self._rank = board, rank
        self._here = f"rank {rank}"

    def sentence(self) -> CollxError | None:
        """What every rank raises, once there is a verdict."""
        verdict = self._board.decided(VERDICT)
        return None if verdict is None else self._error(verdict)

    def judged(self, error: Exception) -> Exception:
        """What this rank raises for an error of its own, after making it the verdict if it is the first."""
        proposal = self._proposal(error)
        verdict = self._board.decide(VERDICT, proposal)
        if not isinstance(error, CollxError):
            return error
        if isinstance(error, TimeoutError) and verdict.why == GAVE_UP:
            return error
        if verdict is proposal and verdict.why != FAILED:
            return error
        return self._error(verdict)

    def revoke(self) -> None:
        self._board.decide(VERDICT, Verdict(REVOKED, self._rank))

    def _proposal(self, error: Exception) -> Verdict:
        if isinstance(error, RankFailedError):
            died, _ = self._board.gone()
            return Verdict(FAILED, self._rank, ranks=tuple(sorted({*died, *error.ranks})))
        if isinstance(error, RevokedError):
            return Verdict(REVOKED, self._rank)
        known = isinstance(error, CollxError)
        text = str(error) if known else f"{self._here}: {type(error).__name__}: {error}"
        return Verdict(MISMATCH if isinstance(error, MismatchError) else GAVE_UP, self._rank, text)

    def _error(self, verdict: Verdict) -> CollxError:
        died, left = self._board.gone()
        return verdict.error(self._here, [rank for rank in left if rank not in died])


class BoardSurvivors:
    """See `base.Survivors`."""

    def __init__(self, board: Board, rank: int, size: int) -> None:
        self._board, self._rank, self._size = board, rank, size
        self._here = f"rank {rank} in shrink"

    def members(self, attempt: int, timeout: float) -> tuple[int, ...]:
        gone = self._gone()
        proposal = tuple(rank for rank in range(self._size) if rank not in gone)
        members: tuple[int, ...] = self._board.decide(("members", attempt), proposal)
        return members

    def failed(self, attempt: int) -> bool:
        return self._outcome(attempt) == "failed"

    def unite(self, attempt: int, timeout: float) -> bool:
        self._board.decide(self._question(attempt, self._rank), True)
        deadline, pause = time.monotonic() + timeout, Pause()
        while (outcome := self._outcome(attempt)) is None:
            if time.monotonic() >= deadline:
                missing = named(self._missing(attempt))
                raise TimeoutError(f"{self._here} waited {timeout:g} s for {missing}; does every survivor call it?")
            pause()
        return outcome == "united"

    def give_up(self, attempt: int, reason: str) -> bool | None:
        outcome = self._board.decide(("outcome", attempt), (self._rank, reason))
        return None if isinstance(outcome, tuple) else bool(outcome == "united")

    def _outcome(self, attempt: int) -> str | None:
        """Whether the attempt united its members or failed, as soon as either is known."""
        question = ("outcome", attempt)
        outcome: Any = self._board.decided(question)
        if outcome is None:
            missing, gone = self._missing(attempt), self._gone()
            if not missing:
                outcome = self._board.decide(question, "united")
            elif any(rank in gone and not self._connected(attempt, rank) for rank in missing):
                outcome = self._board.decide(question, "failed")
        if isinstance(outcome, tuple):
            raise AbortedError(f"{self._here}: rank {outcome[0]} gave up: {outcome[1]}")
        return None if outcome is None else str(outcome)

    def _missing(self, attempt: int) -> list[int]:
        return [rank for rank in self._board.decided(("members", attempt)) if not self._connected(attempt, rank)]

    def _connected(self, attempt: int, rank: int) -> bool:
        return self._board.decided(self._question(attempt, rank)) is not None

    def _gone(self) -> Collection[int]:
        died, left = self._board.gone()
        return {*died, *left}

    @staticmethod
    def _question(attempt: int, rank: int) -> Hashable:
        return ("connected", attempt, rank)
