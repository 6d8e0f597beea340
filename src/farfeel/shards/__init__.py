"""Corpora prepared once as tar shards: the format, how they are made and read."""
