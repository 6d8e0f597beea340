"""Speed and memory, measured on the machine at hand: `make bench`. How well speech is found: `benchmarks.speech`."""
