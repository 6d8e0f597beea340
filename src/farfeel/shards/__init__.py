"""Corpora prepared once as tar shards: the format, how they are made, how they are read."""
