"""Files, the console, process pools: what every other package stands on, and nothing about emotions or audio."""
