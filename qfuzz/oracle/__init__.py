"""The oracle: contracts, admissible sets, verdicts, and `check`."""
