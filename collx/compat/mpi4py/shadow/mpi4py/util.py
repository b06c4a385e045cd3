"""Not in collx's shim. The error has no `name`: `from mpi4py import` would say something else."""

raise ModuleNotFoundError("mpi4py.util is not in collx's shim of mpi4py")
