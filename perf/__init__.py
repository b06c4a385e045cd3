"""Measures collx: `sweep` in the manner of nccl-tests, `peers` beside other libraries, `report` as tables."""
