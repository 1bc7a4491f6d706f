"""Backends: dialects (pure lowering), executors, contracts, discovery. Frameworks are imported here alone."""
