"""Strategies: quantized networks, cases and their parts. The only room that imports hypothesis."""

from qfuzz.strategies.generate import cases_of
from qfuzz.strategies.networks import cases, networks
from qfuzz.strategies.qtypes import qtypes, scales, zero_points

__all__ = ["cases", "cases_of", "networks", "qtypes", "scales", "zero_points"]
