"""`python -m collx`, the same as `collx`."""

import sys

from collx.cli import main

if __name__ == "__main__":
    sys.exit(main())
