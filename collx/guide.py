"""What one communicator's selector goes by beside the call: the same on all its ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

from collx.tuning import Key, Table
from collx.wishes import NCCL, Wish, Wishes


@dataclass(frozen=True, slots=True)
class Guide:
    """What one communicator's selector goes by. `tells`: its rank 0 says what is chosen. `tries`: calls are for finding
    out what is the fastest, and this is what a table of it is for, of no machine where none is to be kept."""

    wishes: Wishes = field(default_factory=dict)
    table: Table | None = None
    tells: bool = False
    tries: Key | None = None

    def wish(self, collective: str, elsewhere: str = NCCL) -> Wish | None:
        """What may be chosen; None where nothing was said, or only of what serves arrays `elsewhere`: NCCL those on
        GPUs, MPI those in the host's memory."""
        wish = self.wishes.get(collective)
        return None if wish == Wish((elsewhere,)) else wish


UNGUIDED = Guide()
