"""`python -m mpi4py program.py`: run it. That an exception on one rank ends the job holds without this too."""

from mpi4py.run import main

main()
