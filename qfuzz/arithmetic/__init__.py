"""Arithmetic models: precise ways to compute a kernel, bit for bit. They explain violations and test qfuzz."""
