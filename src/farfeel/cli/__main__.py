"""`python -m farfeel.cli`."""

from farfeel.cli import run

run()
