"""Layouts of measured rooms: one function in one module each, found by `farfeel.variants.ROOM_IMPORTERS`.

A function `layout(root: Path, sample_rate: int, array: str | None = None) -> list[Rir]` reads all responses under a
folder. `array` is one of several published microphone arrays; None is the layout's own choice. Errors are FarfeelError
with one line. `farfeel.rooms.measured` has the code that all layouts share. Another package adds a layout with such a
function and one line in its pyproject.toml:

    [project.entry-points."farfeel.room_importers"]
    dechorate = "my_package.dechorate:dechorate"
"""
