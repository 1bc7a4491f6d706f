"""Findings: signatures, known issues, the corpus, and reproducers that prove themselves."""
