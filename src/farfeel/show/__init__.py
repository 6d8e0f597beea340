"""Predictions and timelines as text, subtitles and pages."""
