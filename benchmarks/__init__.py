"""Measurements of speed, memory and accuracy. `make bench` measures speed and memory on this machine.

The other modules are run by themselves: `python -m benchmarks.NAME` prints what each of them needs.
"""
