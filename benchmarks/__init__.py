"""Benchmarks of the cost of protection: ``python -m benchmarks`` prints tables of times and ratios."""
