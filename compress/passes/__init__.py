"""Passes: functions from a Model to a Model. Each reports what it changed and what it skipped."""
