"""Speed, measured against what users would pick instead: `python -m tests.benchmarks`, or `make bench`."""
