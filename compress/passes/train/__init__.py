"""Training on an exported graph: the loop, what it minimises, what it feeds, and the pass."""
