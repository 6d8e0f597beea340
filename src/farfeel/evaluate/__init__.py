"""Evaluation: pure functions of a prediction table. Nothing here imports torch."""
