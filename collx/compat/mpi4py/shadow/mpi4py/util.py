"""Not in collx's shim."""

raise ModuleNotFoundError("mpi4py.util is not in collx's shim of mpi4py", name="mpi4py.util")
