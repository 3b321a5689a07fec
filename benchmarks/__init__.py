"""Training steps of resnetcore and its rivals, interleaved in one run: `python -m benchmarks`."""
