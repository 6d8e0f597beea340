"""`python -m farfeel.cli` is the same as `farfeel`."""

from farfeel.cli import run

run()
