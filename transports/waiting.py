"""How Python waits for what it can only look at: again and again, less and less often."""

from __future__ import annotations

import time


class Pause:
    """Yield at first, then sleep for longer and longer: at most `longest` seconds, so that waiting costs next to
    nothing."""

    def __init__(self, longest: float = 1e-3) -> None:
        self.turns, self.longest = 0, longest

    def __call__(self) -> None:
        self.turns += 1
        time.sleep(0.0 if self.turns < 20 else min(20e-6 * 2 ** min(self.turns - 20, 8), self.longest))
