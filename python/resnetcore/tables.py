"""Plain text tables. A table is a string that shows as itself, in a terminal as in a notebook."""

from __future__ import annotations

from collections.abc import Sequence


class Text(str):
    """A string of several lines whose repr is itself."""

    def __repr__(self) -> str:
        return str(self)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> Text:
    """Columns padded to their widest cell, the first `left` of them to the left and the others to the right."""
    cells = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return Text("\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]]))
