"""Structured pruning: coupled groups derived from the exported graph, and cuts of them."""
