"""Measuring answers: on the small corpus's held-out files (naming.py), and on the paper's benchmarks."""
