"""How much the protection costs: ``python -m benchmarks`` prints a table of ratios."""
