"""The course's functions beside the tutorials' own way: `python -m benchmarks` prints how much faster or smaller.

Every module `bench_*.py` has `run() -> list[dict]` with the keys name, ours, theirs, ratio (above 1 is better), unit,
perhaps spread (lowest and highest ratio of several runs), and `TARGETS`, the ratio wanted for each name. Both ways must
give the same rows, or the benchmark stops.
"""
