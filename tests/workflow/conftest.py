from shared_projects import canned_latency, fails_for, finished, on_both, project

__all__ = ["canned_latency", "fails_for", "finished", "on_both", "project"]
