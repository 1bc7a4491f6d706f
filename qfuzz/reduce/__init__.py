"""Reduction: from a case with a symptom to the smallest one that still has it."""
