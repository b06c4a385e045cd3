"""Proofs of schedules: what a collective promises, checked on symbolic values for every rank.

For one schedule per rank this proves that every result is the right one, each contribution in it exactly once;
that all ranks compute results by the same tree, so that they are equal bit by bit; that no block is read before
it is written, and none written twice at a time; that no order of events deadlocks; and that rounds and volume
are what the closed forms say.
"""

from collx.verify.command import main
from collx.verify.proof import Proof, prove, prove_schedule, prove_schedules

__all__ = ["Proof", "main", "prove", "prove_schedule", "prove_schedules"]
