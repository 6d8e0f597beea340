"""Files, the console, process pools: what every other package uses. Nothing here is about emotions or audio."""
