"""`python -m collx.perf COLLECTIVE ...`: the sweep, inside a job or starting ranks of its own."""

import sys

from collx.perf.sweep import main

sys.exit(main(sys.argv[1:]))
