"""How our figures look. matplotlib is imported inside functions only, and never its pyplot: no window, no global state."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = str | tuple[float, float, float, float]

# Okabe & Ito (2008): told apart with every common kind of colour blindness.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
INK, MUTED, GRID = "#222222", "#6B6B6B", "#E4E4E4"

# Keys are matplotlib's own names, a type that not every version of it has.
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
}


def new_figure(columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `size` inches with its axes side by side.

    Raises:
        ImportError: matplotlib is not installed; the message has the command.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'resnetcore[plot]'") from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    return figure, axes


def set_title(axes: Axes, text: str) -> None:
    """A finding, in bold, above the left edge."""
    axes.set_title(text, loc="left", fontsize=12.5, fontweight="bold", pad=12, color=INK)


def plain_numbers(*axes: Any) -> None:
    """1, 10, 100 on a logarithmic axis instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def save(figure: Figure, path: Any) -> Figure:
    """Writes the figure whole or not at all, in the format of the path's ending (PNG where it has none)."""
    if path is not None:
        from ._atomic import replace_file

        target = os.fspath(path)
        image = io.BytesIO()
        kind = os.path.splitext(target)[1].lstrip(".") or "png"
        figure.savefig(image, format=kind, dpi=160, facecolor="white", metadata=_undated(kind))
        replace_file(target, [image.getvalue()])
    return figure


def label_ends(axes: Axes, labels: Sequence[tuple[float, float, str, Colour]], *, gap: float = 0.06) -> None:
    """Names curves at their right ends instead of in a legend; labels that would overlap are moved apart.

    Args:
        axes: with its scales and limits set; the labels stand right of x, which is in data coordinates.
        labels: (x, y, text, colour) of each curve's end.
        gap: smallest distance between two labels, as a fraction of the height.
    """
    axes.get_xlim(), axes.get_ylim()  # brings the limits up to date, which transData alone does not
    to_fraction = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_fraction.transform((x, y))[1]) for x, y, _, _ in labels]
    placed = _spread(wanted, gap)
    for (x, _, text, colour), height in zip(labels, placed, strict=False):
        at = (float(to_fraction.transform((x, labels[0][1]))[0]), height)
        axes.annotate(
            text,
            at,
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            ha="left",
            annotation_clip=False,
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights as near as can be to those wanted, at least `gap` apart, in the same order."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    groups: list[tuple[list[int], float]] = []  # members from the bottom up, and their middle
    for index in order:
        members, middle = [index], wanted[index]
        while groups and groups[-1][1] + gap * (len(groups[-1][0]) + len(members)) / 2 > middle:
            below, _ = groups.pop()
            members = below + members
            middle = sum(wanted[i] for i in members) / len(members)
        groups.append((members, middle))
    placed = [0.0] * len(wanted)
    for members, middle in groups:
        for rank, index in enumerate(members):
            placed[index] = middle + gap * (rank - (len(members) - 1) / 2)
    return placed


def _undated(kind: str) -> dict[str, Any]:
    return {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
