"""From a recipe to evidence: the one place where models, data, runtimes, hosts and measurements meet."""
