"""Exact arithmetic: evaluate fast in float64, decide exactly in rationals, round in one place."""
