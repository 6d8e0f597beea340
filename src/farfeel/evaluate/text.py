"""Accuracies as a plain-text table."""

from __future__ import annotations

from collections.abc import Mapping

from farfeel.evaluate.metrics import Interval, Metrics


def systems_table(systems: Mapping[str, Metrics]) -> str:
    """Accuracy per room in per cent with its confidence interval, a column for each system.

    systems: name → metrics on the same clips and rooms. Returns the table, with the mean over rooms, the unweighted
    average recall (UAR) and the size of the test.
    """
    first = next(iter(systems.values()))
    rows = [["accuracy, %", *systems]]
    for room in first.rooms:
        rows.append([room, *(_percent(system.rooms[room].accuracy) for system in systems.values())])
    if len(first.rooms) > 1:
        rows.append(["mean over rooms", *(_percent(system.mean_over_rooms.accuracy) for system in systems.values())])
    rows.append(["UAR, overall", *(_percent(system.overall.uar) for system in systems.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    protocol = first.protocol
    lines.append(f"[{protocol.level:.0%} interval over {protocol.speakers} speakers; {protocol.clips} clips]")
    return "\n".join(lines)


def _percent(interval: Interval) -> str:
    if interval.low != interval.low:  # one speaker: no interval
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
