"""`python -m collx.perf COLLECTIVE ...`: the sweep, inside a job or starting ranks of its own."""

import signal
import sys

try:
    from collx.perf.sweep import main
except KeyboardInterrupt:  # what is imported takes a while
    sys.exit(128 + signal.SIGINT)

sys.exit(main(sys.argv[1:]))
