"""Figures: what they return, what they draw, what they write. matplotlib is loaded by nothing but them."""

import subprocess
import sys

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.figure import Figure  # noqa: E402

import resnetcore as rc  # noqa: E402
from resnetcore import plots  # noqa: E402
from resnetcore.figure_style import _spread  # noqa: E402

CURVES = {
    "loss": [2.0, 0.5, 0.01],
    "lr": [0.1, 0.1, 0.1],
    "val_loss": [2.1, 0.7, float("nan")],
    "val_accuracy": [0.1, 0.8, 0.9],
}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_history_has_a_panel_for_each_quantity_and_leaves_out_a_constant_rate():
    figure = plots.history(CURVES)
    assert isinstance(figure, Figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Accuracy"]
    assert texts(figure.axes[0]) == ["training", "validation"]
    assert figure.axes[0].get_yscale() == "log"


def test_history_of_one_epoch_and_of_none(tmp_path):
    plots.history({"loss": [1.0]}, tmp_path / "one.png")
    with pytest.raises(ValueError, match="no epochs"):
        plots.history(rc.History())


def test_history_plots_itself(tmp_path):
    path = tmp_path / "curves.png"
    assert isinstance(rc.History({"loss": [1.0, 0.5]}).plot(path), Figure)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_written_files_are_the_same_every_time(tmp_path, ending, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.hashsalt", "resnetcore")
    for name in "ab":
        plots.history(CURVES, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_gradient_norms_of_a_diagnosis_and_of_numbers(tmp_path):
    net = rc.models.resnet(4, 3, 8, 6)
    found = net.diagnose(np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 3)
    figure = plots.gradient_norm({"residual": found, "given": [1e-6, 0.0, 1.0]}, tmp_path / "g.png")
    (axes,) = figure.axes
    assert texts(axes) == ["residual", "given"]
    assert axes.get_yscale() == "log"
    assert axes.xaxis_inverted()
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), found.gradient_norm)


def test_skip_usage_leaves_out_layers_without_skips(tmp_path):
    ratios = [[np.nan, np.inf, 3.0], [np.nan, 2.0, 1.0]]
    figure = plots.skip_usage([0, 10], ratios, tmp_path / "s.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["2", "3"]


@pytest.mark.parametrize("ratios", [[[1.0, 2.0]], [1.0, 2.0], [[], []]])
def test_skip_usage_refuses_other_shapes(ratios):
    with pytest.raises(ValueError, match="one row for each of steps"):
        plots.skip_usage([0, 1], ratios)


def test_skip_usage_without_any_skip():
    with pytest.raises(ValueError, match="no layer of this network has a skip"):
        plots.skip_usage([0], [[np.nan, np.nan]])


def test_labels_are_spread_in_order_and_no_further_than_needed():
    placed = _spread([0.5, 0.5, 0.51, 0.9], 0.1)
    assert placed[0] < placed[1] < placed[2] < placed[3]
    assert min(np.diff(placed)) >= 0.1 - 1e-12
    assert placed[3] == 0.9
    assert np.isclose(np.mean(placed[:3]), np.mean([0.5, 0.5, 0.51]))


def test_matplotlib_is_loaded_late_and_pyplot_never():
    code = (
        "import sys, resnetcore.plots as p; assert 'matplotlib' not in sys.modules; p.history({'loss': [1., 2.]});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'resnetcore\[plot\]'"):
        plots.history(CURVES)
