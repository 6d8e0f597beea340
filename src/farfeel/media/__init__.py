"""Decoding of media files, and nothing else. All channels are kept."""
