"""demo.png: three findings, one panel each. Titles claim only what the numbers show; otherwise they name the quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..figure_style import BLUE, MUTED, RED, SKY, label_ends, new_figure, plain_numbers, save, set_title
from ..plots import draw_gradient_norms
from . import gradients, report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    gradients.PLAIN: RED,
    gradients.RESIDUAL: BLUE,
    gradients.INSIDE: SKY,
    gradients.HE: MUTED,
    gradients.NORMALISED: MUTED,
}


def draw(result: dict[str, Any], path: Any = None) -> Figure:
    """The figure of a demo's result, written to `path` where one is given."""
    figure, (left, middle, right) = new_figure(3, (15.6, 5.0))
    _degradation(left, result)
    _vanishing(middle, result)
    _leaning(figure, right, result)
    settings = result["settings"]
    note = (
        f"8×8 digits, width {settings['width']}. Left and right: batch norm, SGD {settings['lr']} with momentum "
        f"{settings['momentum']}, {settings['epochs']} epochs. Middle: {settings['depths'][-1]} layers before "
        "training, Glorot scaling and no norm unless named."
    )
    figure.supxlabel(note, x=0.008, ha="left", fontsize=9.5, color=MUTED)
    return save(figure, path)


def _degradation(axes: Axes, result: dict[str, Any]) -> None:
    ends = []
    for kind, colour in (("plain", RED), ("residual", BLUE)):
        depths, errors = report.errors_by_depth(result, kind)
        percent = [100 * error for error in errors]
        axes.plot(depths, percent, color=colour, marker="o", markersize=7, clip_on=False, zorder=3)
        ends.append((depths[-1], percent[-1], f"{kind}\n{percent[-1]:.1f}%", colour))
    top = max(10, 1.08 * max(y for _, y, _, _ in ends))
    axes.set_ylim(-0.03 * top, top)
    axes.set_xticks(depths)
    axes.set_xlabel("layers")
    axes.set_ylabel("training error after the last epoch (%)")
    set_title(
        axes,
        "Deeper plain nets train worse,\nresidual nets do not"
        if report.degrades(result)
        else "Training error\nby depth",
    )
    label_ends(axes, ends, gap=0.12)


def _vanishing(axes: Axes, result: dict[str, Any]) -> None:
    curves = {name: np.asarray(norms) for name, norms in result["gradients"].items()}
    draw_gradient_norms(axes, curves, _COLOURS)
    plain, residual = result["gradients"][gradients.PLAIN], result["gradients"][gradients.RESIDUAL]
    holds = report.span(plain) > 1e6 and report.span(residual) < 1e3
    set_title(
        axes,
        "Sigmoid gradients vanish towards the input\nunless skips lead around the sigmoid"
        if holds
        else "Gradient norm by layer\nbefore the first step",
    )


def _leaning(figure: Figure, axes: Axes, result: dict[str, Any]) -> None:
    from matplotlib import colormaps

    skips = result["skips"]
    ratios = np.array(skips["ratios"], float)
    first, last = skips["layers"][0], skips["layers"][-1]
    colours = colormaps["viridis"]
    for column, number in enumerate(skips["layers"]):
        axes.plot(
            skips["steps"], ratios[:, column], color=colours(0.8 * (number - first) / max(1, last - first)), lw=1.3
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_numbers(axes.xaxis, axes.yaxis)
    axes.set_xlabel("training step")
    axes.set_ylabel("‖skip‖ / ‖branch‖, one line a block")
    medians = report.median_ratios(skips)
    set_title(
        axes,
        "Early training runs through the skips,\nthen the branches come in"
        if medians[-1] < medians[0] / 2
        else "How strongly each layer\nleans on its skip",
    )
    label_ends(
        axes,
        [
            (skips["steps"][-1], ratios[-1, 0], f"layer {first}", colours(0.0)),
            (skips["steps"][-1], ratios[-1, -1], f"layer {last}", colours(0.8)),
        ],
    )
