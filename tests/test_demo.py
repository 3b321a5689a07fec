"""The demo: what it claims is what its runs found, and its figure follows the numbers whichever way they turn out."""

import io
import json
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import resnetcore as rc
from resnetcore import demo, digits
from resnetcore.demo import experiments, figure, gradients, report


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One thread gives the same numbers, and beside other tests in a third of the time."""
    folder, stream, threads = tmp_path_factory.mktemp("demo"), io.StringIO(), rc.get_num_threads()
    rc.set_num_threads(1)
    result = demo.run(folder, quick=True, stream=stream)
    rc.set_num_threads(threads)
    return result, folder, stream.getvalue()


def titles(result):
    return [axes.get_title(loc="left").replace("\n", " ") for axes in figure.draw(result).axes]


def test_digits_are_split_without_overlap_the_same_way_every_time():
    first, second = digits.split(), digits.split()
    assert first.x.dtype == np.float32 and first.x.min() == 0 and first.x.max() == 1
    assert (len(first.x), len(first.test_x)) == (1438, 359)
    np.testing.assert_array_equal(first.x, second.x)
    whole, _ = digits.load()
    together = np.concatenate([first.x, first.test_x])
    np.testing.assert_array_equal(together[np.lexsort(together.T)], whole[np.lexsort(whole.T)])


def test_depth_harms_the_plain_network_only(quick):
    result, _, _ = quick
    _, plain = report.errors_by_depth(result, "plain")
    _, residual = report.errors_by_depth(result, "residual")
    assert plain[0] < 0.02 and plain[-1] > 0.3
    assert max(residual) < 0.02
    assert report.degrades(result)


def test_other_kinds_of_skips_train_at_the_large_depth(quick):
    rows = {row["kind"]: row for row in quick[0]["networks"] if row["kind"] not in ("plain", "residual")}
    assert set(rows) == {"learned skips", "dense", "gated"}
    assert all(row["depth"] == 49 and row["training_error"] < 0.1 and not row["diverged"] for row in rows.values())


def test_gradients_vanish_where_it_is_said_they_do(quick):
    norms = quick[0]["gradients"]
    assert report.span(norms[gradients.PLAIN]) > 1e20
    assert 1e8 < report.span(norms[gradients.INSIDE]) < 1e20
    assert 0.01 < report.span(norms[gradients.RESIDUAL]) < 1e3
    assert 0.01 < report.span(norms[gradients.HE]) < 100
    assert report.span(norms[gradients.NORMALISED]) < 0.01


def test_skips_carry_the_beginning(quick):
    skips = quick[0]["skips"]
    medians = report.median_ratios(skips)
    assert skips["steps"][0] == 1 and skips["layers"][0] == 4 and skips["layers"][-1] == 48
    assert medians[0] > 5 * medians[-1]


def test_it_writes_what_it_returns(quick):
    result, folder, _ = quick
    assert json.loads((folder / "demo.json").read_text()) == result
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "demo.png"]


def test_progress_and_summary_name_every_network(quick):
    result, _, printed = quick
    assert len(printed.splitlines()) == 1 + len(result["networks"])
    summary = report.summary(result)
    assert all(word in summary for word in ("plain", "residual", "learned skips *", "dense *", "gated *"))
    assert "without skips" in summary and "restored" in summary


def test_titles_state_findings_where_they_hold(quick):
    assert titles(quick[0]) == [
        "Deeper plain nets train worse, residual nets do not",
        "Sigmoid gradients vanish towards the input unless skips lead around the sigmoid",
        "Early training runs through the skips, then the branches come in",
    ]


def test_titles_claim_nothing_where_they_do_not(quick):
    result = json.loads(json.dumps(quick[0]))
    for row in result["networks"]:
        row["training_error"] = 0.1
    result["gradients"] = {name: [1.0] * 49 for name in result["gradients"]}
    result["skips"]["ratios"] = [[1.0] * len(row) for row in result["skips"]["ratios"]]
    assert titles(result) == [
        "Training error by depth",
        "Gradient norm by layer before the first step",
        "How strongly each layer leans on its skip",
    ]


def test_a_network_that_diverges_is_a_row_and_not_the_end():
    settings = experiments.Settings(depths=(5,), epochs=2, lr=1e30)
    stream = io.StringIO()
    with np.errstate(all="ignore"):
        outcome = experiments.train(
            settings.experiments()[0], digits.split(), settings, report.Progress(stream, settings)
        )
    assert outcome["network"]["diverged"]
    json.dumps(outcome, allow_nan=False)


@pytest.mark.parametrize("module, name", [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_what_is_missing_is_said_before_anything_is_done(module, name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {name}: pip install 'resnetcore\[demo\]'"):
        demo.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
