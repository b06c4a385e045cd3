"""The store that all ranks of a job share: its ranks' side, rank 0's, and what they say to each other."""
