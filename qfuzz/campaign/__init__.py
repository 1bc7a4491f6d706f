"""Campaigns: shards of cases, worker processes that survive their kernels, and the run that gathers what they find."""
