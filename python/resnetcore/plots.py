"""Curves of training and diagnoses as figures. Each returns a matplotlib Figure, and writes it where a `path` is given.

Needs matplotlib (extra `plot`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figure_style import CYCLE, MUTED, label_ends, new_figure, save, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .diagnostics import Diagnosis

__all__ = ["gradient_norm", "history", "skip_usage"]


def history(values: Mapping[str, Sequence[float]], path: Any = None) -> Figure:
    """Loss and metrics by epoch: one panel for each quantity, training and validation in the same one.

    Args:
        values: a `History`, or any mapping of metric to one number an epoch; "lr" is left out where it never changes.
        path: where to write it, as PNG, SVG or PDF by its ending.

    Raises:
        ValueError: no epochs.
    """
    panels = _panels(values)
    if not panels:
        raise ValueError("plots.history: there is nothing to draw, the history has no epochs")
    figure, all_axes = new_figure(len(panels), (5.2 * len(panels), 3.9))
    for axes, (quantity, curves) in zip(all_axes, panels.items(), strict=False):
        _draw_curves(axes, quantity, curves)
    return save(figure, path)


def gradient_norm(diagnoses: Mapping[str, Diagnosis | Sequence[float]], path: Any = None) -> Figure:
    """‖∂E/∂W‖ of each layer, on a logarithmic axis, in the order in which gradients reach them: from the output back.

    A curve that falls to the right vanishes towards the input; one that rises explodes.

    Args:
        diagnoses: a name for each curve, and a `Diagnosis` or the norms from layer 1 on. Norms of 0 are left out.
        path: where to write it.
    """
    if not diagnoses:
        raise ValueError("plots.gradient_norm: diagnoses must name at least one network")
    figure, (axes,) = new_figure(1, (7.2, 4.4))
    curves = {name: np.asarray(getattr(value, "gradient_norm", value), float) for name, value in diagnoses.items()}
    draw_gradient_norms(axes, curves, dict(zip(curves, _colours(len(curves)), strict=False)))
    set_title(axes, "Size of each layer's gradient")
    return save(figure, path)


def draw_gradient_norms(axes: Axes, curves: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> None:
    """The curves of `gradient_norm` on axes of the caller's."""
    axes.set_yscale("log")
    ends = []
    for name, norms in curves.items():
        layers, shown = np.arange(1, len(norms) + 1), np.where(norms > 0, norms, np.nan)
        axes.plot(layers, shown, color=colours[name])
        drawn = np.flatnonzero(np.isfinite(shown))
        if len(drawn):
            ends.append((layers[drawn[0]], shown[drawn[0]], name, colours[name]))
    axes.invert_xaxis()
    axes.set_xlabel("output  ←  layer  →  input")
    axes.set_ylabel("gradient norm  ‖∂E/∂W‖")
    label_ends(axes, ends)


def skip_usage(steps: Sequence[int], ratios: Any, path: Any = None, *, layers: Sequence[int] | None = None) -> Figure:
    """A heat map of ‖skip‖ / ‖branch‖: one row a layer, one column a moment of training.

    Args:
        steps: of each moment, rising.
        ratios: (moments, layers), as `Diagnosis.skip_ratio` gives them; layers without skips (NaN throughout) are left out.
        path: where to write it.
        layers: numbers of the layers; None counts from 1.
    """
    values = np.asarray(ratios, float)
    if values.ndim != 2 or len(values) != len(steps) or values.size == 0:
        raise ValueError(
            f"plots.skip_usage: ratios must be ({len(steps)}, layers), one row for each of steps, got {values.shape}"
        )
    numbers = np.arange(1, values.shape[1] + 1) if layers is None else np.asarray(layers)
    kept = ~np.isnan(values).all(axis=0)
    if not kept.any():
        raise ValueError("plots.skip_usage: no layer of this network has a skip")
    figure, (axes,) = new_figure(1, (7.2, 4.6))
    _draw_heat(figure, axes, steps, values[:, kept].T, numbers[kept])
    return save(figure, path)


def _panels(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Sequence[float]]]:
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, column in values.items():
        if len(column) == 0 or (name == "lr" and len(set(column)) == 1):
            continue
        quantity = name.removeprefix("val_")
        panels.setdefault(quantity, {})["validation" if name.startswith("val_") else "training"] = column
    return panels


def _draw_curves(axes: Axes, quantity: str, curves: Mapping[str, Sequence[float]]) -> None:
    ends = []
    for (name, column), colour in zip(curves.items(), _colours(len(curves)), strict=False):
        epochs = np.arange(1, len(column) + 1)
        axes.plot(epochs, column, color=colour, marker="o" if len(column) < 3 else None)
        measured = [i for i, value in enumerate(column) if math.isfinite(value)]
        if measured:
            ends.append((epochs[measured[-1]], column[measured[-1]], name, colour))
    finite = [value for column in curves.values() for value in column if math.isfinite(value)]
    if "loss" in quantity and finite and min(finite) > 0 and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
    set_title(axes, {"lr": "Learning rate"}.get(quantity, quantity.replace("_", " ").capitalize()))
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    if len(curves) > 1:
        label_ends(axes, ends)


def _draw_heat(figure: Figure, axes: Axes, steps: Sequence[int], values: np.ndarray, numbers: np.ndarray) -> None:
    from matplotlib.colors import LogNorm

    shown = np.ma.masked_invalid(np.where(values > 0, values, np.nan))
    ratios = shown.compressed() if shown.count() else np.ones(1)
    norm = LogNorm(ratios.min(), max(ratios.max(), ratios.min() * 1.01))
    axes.set_facecolor("#FDE725")  # where the branch is zero, all that passes is the skip
    mesh = axes.pcolormesh(np.arange(len(steps) + 1), np.arange(len(numbers) + 1), shown, norm=norm, cmap="viridis")
    axes.grid(False)
    for axis, names in ((axes.xaxis, steps), (axes.yaxis, numbers)):
        every = max(1, len(names) // 8)
        axis.set_ticks([i + 0.5 for i in range(0, len(names), every)], [str(name) for name in names[::every]])
    axes.set_xlabel("training step")
    axes.set_ylabel("layer")
    set_title(axes, "How strongly each layer leans on its skip")
    figure.colorbar(mesh, ax=axes, label="‖skip‖ / ‖branch‖").outline.set_edgecolor(MUTED)


def _colours(count: int) -> list[str]:
    return [CYCLE[i % len(CYCLE)] for i in range(count)]
