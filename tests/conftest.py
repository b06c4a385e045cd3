"""What holds for all tests."""

from __future__ import annotations

import signal

# Shells start background jobs with Ctrl-C ignored, which every process under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
