"""Content-addressed artifacts, cached steps, and an output folder that is never half-written."""
