import sys

from collx.verify import main

sys.exit(main(sys.argv[1:]))
