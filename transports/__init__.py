"""Transports: bytes between two ranks. See `base` for what one is; `conformance` says whether one is right. The folders
hold what joins ranks."""
