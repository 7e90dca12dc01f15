"""Distillation: a student learns what a teacher answers, and what the teacher thinks on the way."""
