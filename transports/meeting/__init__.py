"""The ways in which the ranks of a job first find each other."""
