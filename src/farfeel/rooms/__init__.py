"""Rooms: simulate their impulse responses, read measured ones, keep them in a bank, let them act on dry speech."""
