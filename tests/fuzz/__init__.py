"""Damaged files for every reader: each must be read, or refused with a FarfeelError of one line.

`pytest tests/fuzz` tries a few hundred files of each group. `python -m tests.fuzz GROUP COUNT` tries many more, with
limits of time and memory, and prints a table.
"""
