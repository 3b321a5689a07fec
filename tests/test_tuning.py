"""rc.tune: what was measured is chosen, kept, found again by another process, and changes no result."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import _core, tuning


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "cache" / "tuning.json"
    monkeypatch.setenv("RESNETCORE_TUNING", str(path))
    return path


def network(width):
    return rc.models.resnet(9, 4, width=width, depth=5, seed=1)


def explained(net, batch):
    return str(net.explain(training=True, batch=batch)).split("\n")[1]


def test_the_fastest_is_chosen_and_kept(file):
    net = network(21)  # of sizes that no other test here has: choices hold for the process
    before = net.parameters()
    assert "tuned" not in explained(net, 300)
    result = rc.tune(net, 300, seconds=0.2)
    assert all(np.array_equal(before[name], now) for name, now in net.parameters().items())
    strategy, threads, time = result.split("\n")[2].split()
    assert float(time) == min(float(line.split()[2]) for line in result.split("\n")[2:])
    line = explained(net, 300)
    assert f"on {threads} thread" in line and strategy.replace("_", " ") in line and "(tuned)" in line
    assert "tuned" not in explained(net, 301)
    entry = json.loads(file.read_text())["choices"][0]["choice"]
    assert (entry["rows"], entry["strategy"], str(entry["use_threads"])) == (300, strategy, threads)
    # Another network of these sizes in another process; and tuning again replaces the entry.
    rc.tune(network(22), 40, seconds=0.01)
    rc.tune(net, 300, seconds=0.01)
    assert len(json.loads(file.read_text())["choices"]) == 2
    program = (
        "import resnetcore as rc; net = rc.models.resnet(9, 4, width=21, depth=5, seed=2)\n"
        "rc.Trainer(net); print(net.explain(training=True, batch=300))"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert "(tuned)" in run.stdout


@pytest.mark.parametrize("strategy", ["by_layer", "by_tile"])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_choice_changes_a_bit(strategy, threads):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1200, 9)).astype("float32"), rng.integers(0, 4, 1200)

    def trained():
        net = network(64)
        trainer = rc.Trainer(net)
        losses = [trainer.step(x, y) for _ in range(3)]
        return [np.array(losses), *net.parameters().values()]

    before = rc.get_num_threads()
    rc.set_num_threads(2)
    expected = trained()
    shape = network(64)._core.step_shape(1200)
    assert shape["threads"] == 2
    _core.remember_choice(shape, strategy, threads)
    assert f"on {threads} thread" in explained(network(64), 1200)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, trained(), strict=True))
    rc.set_num_threads(before)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"version": 2, "choices": []}', '{"version": 1}', '{"version": 1, "choices": [3]}']
    + ['{"version": 1, "choices": [{"machine": MACHINE, "choice": CHOICE}]}'.replace("CHOICE", c) for c in ("3", "{}")],
)
def test_a_file_that_cannot_be_used_is_passed_over(file, text):
    file.parent.mkdir()
    file.write_text(text.replace("MACHINE", json.dumps(tuning._machine("cpu"))))
    with pytest.warns(RuntimeWarning, match="passed over"):
        rc.Trainer(network(8))
    rc.Trainer(network(8))  # it is said once
    rc.tune(network(8), 10, seconds=0.01)
    assert len(json.loads(file.read_text())["choices"]) == 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_passed_over_at_once(file, make):
    file.parent.mkdir()
    make(file)
    with pytest.warns(RuntimeWarning, match="passed over"):
        rc.Trainer(network(8))
    with pytest.raises(OSError, match=r"tuning\.json"):
        rc.tune(network(8), 13, seconds=0.01)


def test_choices_of_another_machine_are_left(file):
    other = {"machine": {"isa": "none"}, "choice": {**network(8)._core.step_shape(11), "strategy": "by_tile"}}
    file.parent.mkdir()
    file.write_text(json.dumps({"version": 1, "choices": [other]}))
    rc.tune(network(8), 11, seconds=0.01)
    assert json.loads(file.read_text())["choices"][0] == other


def test_no_file_is_written_where_none_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNETCORE_TUNING", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rc.tune(network(8), 12, seconds=0.01)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("RESNETCORE_TUNING")
    rc.tune(network(8), 12, seconds=0.01)
    assert (tmp_path / "resnetcore" / "tuning.json").exists()


SHARED = """
import ctypes, json, os
import numpy as np
import resnetcore as rc
from resnetcore import _core

library = ctypes.CDLL(os.environ["RESNETCORE_CUDA_LIBRARY"]) if "RESNETCORE_CUDA_LIBRARY" in os.environ else None
blocks = library.resnetcore_emulated_shared_blocks if library else lambda: 0
rng = np.random.default_rng(0)
x, y = rng.standard_normal((70, 9)).astype("float32"), rng.integers(0, 4, 70)


def network():
    normed = [rc.Layer(40, norm="batch"), rc.Layer(40, norm="batch")]
    layers = [rc.Layer(40), rc.Layer(40), rc.Layer(40), *normed, rc.Layer(4, activation=None)]
    return rc.Network(9, layers, seed=1, dtype="bfloat16", device="cuda")


def trained():
    trainer, before = rc.Trainer(network()), blocks()
    return [trainer.step(x, y) for _ in range(4)], blocks() - before


def plan():
    return str(network().explain(training=True, batch=70)).split(chr(10))[1]
"""


def run_on_gpu(program, path=None):
    environment = {name: value for name, value in os.environ.items() if name != "RESNETCORE_CUDA_PATH"}
    if path:
        environment["RESNETCORE_CUDA_PATH"] = path
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHARED + program], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


TRAIN = "made = trained(); print(json.dumps([plan(), *made]))"


@pytest.mark.gpu
def test_a_gpus_kernels_are_chosen_and_kept(device, file):
    program = "paths = _core.device_paths('cuda')\n"
    program += "of_all = rc.tune(network(), 71, 0.1, paths=[name for name, _ in paths])\n"
    program += "print(json.dumps([paths, rc.tune(network(), 70, 0.1), plan(), of_all]))"
    paths, result, line, of_all = run_on_gpu(program)
    has_passed = dict(paths)
    ranking = [row.split() for row in result.split("\n")[2:]]
    assert sorted(name for name, _ in ranking) == sorted(name for name, passed in paths if passed)
    assert sorted(row.split()[0] for row in of_all.split("\n")[2:]) == sorted(has_passed)
    assert has_passed["simple"] and not has_passed["ampere"]
    times = [float(time) for _, time in ranking]
    assert times == sorted(times)
    assert f"kernels of the path {ranking[0][0]} (tuned)" in line
    # Another process finds what was kept, whatever it is, and takes it: as one does that is told to.
    kept = json.loads(file.read_text())
    assert [entry["choice"]["rows"] for entry in kept["choices"]] == [71, 70]
    assert kept["choices"][1]["choice"]["path"] == ranking[0][0] and "device" not in kept["choices"][1]["choice"]
    counts = {}
    for path in has_passed:
        kept["choices"][1]["choice"]["path"] = path
        file.write_text(json.dumps(kept))
        line, *tuned = run_on_gpu(TRAIN)
        assert f"kernels of the path {path} (tuned)" in line
        line, *told = run_on_gpu(TRAIN, path)
        assert told == tuned and "tuned" not in line
        counts[path] = tuned[1]
    # Who is told takes that one, whatever was kept.
    last = list(has_passed)[-1]
    assert run_on_gpu(TRAIN, "simple")[2] == counts["simple"]
    if "RESNETCORE_CUDA_LIBRARY" in os.environ and last == "hopper_fused":
        assert counts["simple"] == 0 < counts["hopper_fused"] < counts["hopper_narrow"] < counts["hopper"]


@pytest.mark.gpu
def test_choices_that_a_gpu_does_not_have(device, file, monkeypatch):
    monkeypatch.delenv("RESNETCORE_CUDA_PATH", raising=False)
    net = rc.Network(9, [rc.Layer(4)], dtype="bfloat16", device=device)
    shape = net._core.step_shape(10)
    for name in ("fastest", ""):
        with pytest.raises(ValueError, match=f'no path "{name}"'):
            _core.remember_path(shape, name)
    with pytest.raises(ValueError, match="one strategy"):
        _core.remember_choice(shape, "by_tile", 1)
    with pytest.raises(rc.DeviceError, match=r"float32.*one way to do a step"):
        rc.tune(rc.Network(9, [rc.Layer(4)], device=device), 10)
    for paths in ([], ["simple", "fastest"], "simple"):
        with pytest.raises(ValueError, match="tune: paths must be some of"):
            rc.tune(net, 10, paths=paths)
    file.parent.mkdir()
    machine = tuning._machine(net.device)
    choice = {**shape, "path": "fastest"}
    file.write_text(json.dumps({"version": 1, "choices": [{"machine": machine, "choice": choice}]}))
    with pytest.warns(RuntimeWarning, match=r"passed over.*no path \"fastest\""):
        rc.Trainer(net)


@pytest.mark.gpu
def test_a_gpus_tuning_that_fails_leaves_what_was_there(device, file, monkeypatch):
    monkeypatch.delenv("RESNETCORE_CUDA_PATH", raising=False)
    net = rc.Network(9, [rc.Layer(5)], dtype="bfloat16", device=device)
    shape = net._core.step_shape(10)
    monkeypatch.setattr(tuning, "_SAME_LOSS", -1.0)
    with pytest.raises(rc.DeviceError, match=r"has a loss of .* leave out the one"):
        rc.tune(net, 10, paths=["simple"])
    assert _core.remembered_way(shape) is None and not file.exists()
    _core.remember_path(shape, "simple")
    with pytest.raises(rc.DeviceError):
        rc.tune(net, 10, paths=["ampere"])
    assert _core.remembered_way(shape) == ("simple",)
    _core.forget_way(shape)
    monkeypatch.undo()


@pytest.mark.gpu
def test_a_gpus_choices_leave_those_of_the_cpu(device, file, monkeypatch):
    monkeypatch.delenv("RESNETCORE_CUDA_PATH", raising=False)
    layers = [rc.Layer(12)]
    rc.tune(rc.Network(9, layers, dtype="bfloat16"), 10, seconds=0.01)
    rc.tune(rc.Network(9, layers, dtype="bfloat16", device=device), 10, seconds=0.01)
    kept = [entry["choice"] for entry in json.loads(file.read_text())["choices"]]
    assert ["strategy" in choice for choice in kept] == [True, False]


@pytest.mark.gpu
def test_a_path_that_is_forced_leaves_nothing_to_choose(device, file, monkeypatch):
    net = rc.Network(9, [rc.Layer(4)], dtype="bfloat16", device=device)
    monkeypatch.setenv("RESNETCORE_CUDA_PATH", "simple")
    with pytest.raises(ValueError, match="RESNETCORE_CUDA_PATH forces simple"):
        rc.tune(net, 10)


def test_bad_arguments(file):
    net = network(8)
    for bad, error in {"net": rc.DTypeError, 0: ValueError, 2.5: rc.DTypeError}.items():
        with pytest.raises(error, match="tune:"):
            rc.tune(bad, 8) if bad == "net" else rc.tune(net, bad)
    for seconds in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="tune: seconds"):
            rc.tune(net, 8, seconds)
    with pytest.raises(ValueError, match="paths are a GPU's"):
        rc.tune(net, 8, paths=["simple"])
    _core.set_strategy("by_layer")
    try:
        with pytest.raises(ValueError, match="RESNETCORE_STRATEGY"):
            rc.tune(net, 8)
    finally:
        _core.set_strategy("auto")
    with pytest.raises(ValueError, match="threads"):
        _core.remember_choice(net._core.step_shape(8), "by_tile", 1000)
    with pytest.raises(ValueError, match="strategy"):
        _core.remember_choice(net._core.step_shape(8), "auto", 1)
    if os.geteuid() != 0:
        file.parent.mkdir(mode=0o500)
        with pytest.raises(OSError):
            rc.tune(net, 8, 0.01)
