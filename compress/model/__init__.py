"""The exported graph, its signature, its sources and its cost."""
