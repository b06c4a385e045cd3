"""mpi4py's API on collx, with no MPI: what `from mpi4py import MPI` is in a program that `collx run --mpi4py` starts.

`shadow/` is the directory that such a program finds first; all that is done is done here.
"""
