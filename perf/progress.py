"""A progress bar on stderr, on a terminal only."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self


class Progress:
    """Counts sizes done, of `total`; with `left` it estimates the time left rather than show the time that passed.
    Shows nothing where stderr is not a terminal or `shown` is false."""

    def __init__(self, total: int, *, shown: bool, left: bool = False) -> None:
        self._bar: Any = None
        self._total, self._left = total, left
        self._shown = shown and sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            # rich sends what is printed above its bar to its own console, which would empty a redirected stdout.
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn() if self._left else TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                auto_refresh=False,  # a refreshing thread would show in the figures
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bar.__enter__()
            self._task = self._bar.add_task("", total=self._total)
        return self

    def start(self, what: str) -> None:
        """Name what is being measured."""
        if self._bar is not None:
            self._bar.update(self._task, description=what, refresh=True)

    def advance(self) -> None:
        """One more is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
