"""Training: examples in rooms, the loop, several processes, tracking."""
