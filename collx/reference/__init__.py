"""The parts of the reference engine, `collx.engine.ReferenceEngine`: plans run in Python, over any transport."""
