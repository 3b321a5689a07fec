"""The benchmarks on tiny networks: every rival that is installed computes the same, or nothing is timed."""

import argparse
import importlib
import json
import types

import numpy as np
import pytest

import resnetcore as rc
from benchmarks import __main__ as program
from benchmarks import aims, borders, limits, measure, memory, report, sizes
from benchmarks.networks import OPTIMIZERS, VARIANTS, Case
from benchmarks.rivals import resnetcore as ours
from benchmarks.shapes import Shape

TINY = Shape(batch=24, width=16, depth=6)
TRAIN = [(variant, "train", "sgd") for variant in VARIANTS] + [("norm", "train", o) for o in OPTIMIZERS if o != "sgd"]
KINDS = TRAIN + [(variant, "infer", "sgd") for variant in VARIANTS]
NARROW = [(variant, mode, "sgd", "bfloat16") for variant in VARIANTS for mode in ("train", "infer")]


@pytest.fixture(autouse=True)
def number_of_threads():
    before = rc.get_num_threads()
    yield
    rc.set_num_threads(before)


def require(rival):
    library = "torch" if "torch" in rival else rival.removesuffix("_jit").removeprefix("resnetcore_")
    pytest.importorskip(library, reason=f"{library} is not installed")


@pytest.mark.parametrize("kind", KINDS + NARROW, ids="-".join)
@pytest.mark.parametrize(
    "rival",
    [
        "resnetcore_torch",
        "resnetcore_torch_flat",
        "resnetcore_torch_loss",
        "resnetcore_jax",
        "torch_eager",
        "torch_onednn",
        "jax_jit",
        "onnxruntime",
    ],
)
def test_rivals_compute_the_same(rival, kind):
    require(rival)
    case = Case(TINY, *kind)
    sides, result = measure.build(case, ("resnetcore", rival), 1)
    if rival not in sides:
        pytest.skip(f"{rival}: {result[rival]['missing']}")
    measure.compare(case, sides)


@pytest.mark.parametrize("kind", [k for k in KINDS if k[0] != "norm" or k[1] == "infer"], ids="-".join)
def test_the_chain_of_a_gpus_products_computes_the_same_on_a_cpu(kind):
    require("torch")
    case = Case(TINY, *kind)
    sides, _ = measure.build(case, ("resnetcore", "torch_addmm"), 1)
    assert len(sides) == 2
    measure.compare(case, sides)


def test_the_price_of_a_border_is_that_of_the_same_work():
    require("torch")
    require("jax")
    times = borders.measure(3, 5, 0.0)
    assert len(times) == 5 and all(0 < forward and 0 < both for forward, both in times.values())
    text = borders.table({"sizes": [(3, 5)], "rows": [times]})
    assert "| 3 × 5 |" in text and text.count("\n") == 6


def test_a_cpu_has_no_cuda_graphs():
    require("torch")
    _, result = measure.build(Case(TINY), ("torch_graph",), 1)
    assert result["torch_graph"] == {"missing": "CUDA graphs are a GPU's"}


def test_a_gpus_table_says_which():
    row = {
        "shape": {"batch": 1, "width": 2, "depth": 3},
        "rivals": {"resnetcore": {"ms": 1.0}, "torch_graph": {"ms": 2.0}},
    }
    machine = {"gpu": "NVIDIA H100", "driver": "580.1", "versions": "torch 2"}
    run = {"date": "2026-01-01", "commit": "abc", "command": "python -m benchmarks --device cuda", "machine": machine}
    text = report.table(run | {"rows": [row]})
    assert "NVIDIA H100, driver 580.1" in text and "--device cuda" in text
    assert "| resnetcore | PyTorch CUDA graph |" in text and "| 1, 2, 3 | 1.00 | 2.00 | – |" in text


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_scikit_learn_is_beside_the_others(mode):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    sides, result = measure.build(Case(TINY, "identity", mode), ("resnetcore", "sklearn_mlp"), 1)
    measure.compare(Case(TINY, "identity", mode), sides)
    assert result["sklearn_mlp"] == {"note": "no skips"}
    row = {"rivals": {"resnetcore": {"ratio": 1.0}, "sklearn_mlp": {"ratio": 0.5, "note": "no skips"}}}
    assert report.best_ratio(row) == "–"
    row["rivals"]["torch_eager"] = {"ratio": 2.0}
    assert report.best_ratio(row) == "2.00 (PyTorch eager)"
    _, result = measure.build(Case(TINY, "dense", mode), ("resnetcore", "sklearn_mlp"), 1)
    assert "missing" in result["sklearn_mlp"]


def without_updates(case, problem, threads):
    step, _ = ours.build(case, problem, threads)
    return step, lambda: problem.arrays


def with_another_weight(case, problem, threads):
    problem.arrays["2.weight"][0, 0] += 0.5
    return ours.build(case, problem, threads)


def without_numbers(case, problem, threads):
    step, arrays = ours.build(case, problem, threads)
    return lambda: step() * np.nan, arrays


@pytest.mark.parametrize("wrong", [without_updates, with_another_weight, without_numbers])
def test_a_side_that_disagrees_is_refused_before_any_timing(wrong, monkeypatch):
    def never(*_):
        raise AssertionError("timed before the comparison")

    real = importlib.import_module
    fake = types.SimpleNamespace(build=wrong)
    choose = lambda name, package: fake if name == ".rivals.wrong" else real(name, package)  # noqa: E731
    monkeypatch.setattr(measure.importlib, "import_module", choose)
    monkeypatch.setattr(measure, "seconds_a_step", never)
    with pytest.raises(RuntimeError, match=r"wrong's (results|updates) differ by"):
        measure.measure(Case(TINY), ("resnetcore", "wrong"), 1, 0.0)


def test_operations_count_every_product():
    layers, shape = TINY.depth - 1, TINY
    assert Case(TINY).operations == 6 * shape.batch * shape.width * (layers * shape.width + 10)
    assert Case(TINY, mode="infer").operations == Case(TINY).operations / 3
    # Skips from 2, 3 and 4 layers back, where there are so many: 0, 1, 2, 3 and 3 of them.
    assert Case(TINY, "dense").operations == 6 * shape.batch * shape.width * ((layers + 9) * shape.width + 10)


def test_folded_norms_give_the_same_logits():
    case = Case(TINY, "norm", "infer")
    problem = case.problem()
    normed, _ = ours.build(case, problem, 1)
    folded, _ = ours.build(case, problem.folded(), 1)
    np.testing.assert_allclose(folded(), normed(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind", [("identity", "train", "sgd", "float32"), ("dense", "infer", "sgd", "bfloat16")], ids="-".join
)
def test_a_run_writes_json_and_fills_the_table(kind, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(program, "shapes_of", lambda _: [TINY])
    monkeypatch.setattr(measure, "TURN", 0.01)
    monkeypatch.setattr(measure, "PAUSE", {"cpu": 0.01})
    names = dict(
        zip(("variant", "mode", "optimizer", "precision"), kind, strict=True), device="cpu", products="highest"
    )
    rest = {"shapes": None, "rivals": ["resnetcore"], "threads": 1, "quick": False, "seconds": 0.0, "memory": True}
    rest |= {"batch": None, "name": None, "made_by": "python -m benchmarks --of-a-test"}
    program.run(argparse.Namespace(**names, **rest, out=tmp_path))
    (file,) = tmp_path.glob("*.json")
    result = json.loads(file.read_text())
    assert file.stem.endswith("cpu" if kind[1] == "train" else "cpu-dense-infer-bfloat16")
    assert {name: result[name] for name in names} == names
    (row,) = result["rows"]
    assert row["shape"] == {"batch": 24, "width": 16, "depth": 6}
    entry = row["rivals"]["resnetcore"]
    assert entry["ms"] > 0 and entry["ratio"] == 1 and entry["memory_mib"] >= 0 and entry["memory_by"]
    assert file.with_suffix(".png").stat().st_size > 1000

    readme = tmp_path / "README.md"
    begin, end = report.MARKERS
    readme.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    report.put_tables([result, result], readme)
    text = readme.read_text()
    cell = f"| 24, 16, 6 | {entry['ms']:.2f} / {entry['memory_mib']:.0f} | – |"
    assert text.count(cell) == 2 and "old" not in text
    assert text.count("Made by `python -m benchmarks --of-a-test`.") == 2
    assert text.startswith(f"before\n{begin}\n") and text.endswith(f"{end}\nafter\n")
    assert cell in capsys.readouterr().out


def test_inside_a_framework_is_compared_with_the_frameworks_own(monkeypatch):
    require("torch_eager")
    monkeypatch.setattr(measure, "TURN", 0.01)
    monkeypatch.setattr(measure, "PAUSE", {"cpu": 0.01})
    row = measure.measure(Case(TINY), ("resnetcore", "resnetcore_torch", "torch_eager"), 1, 0.0)
    inside, eager = row["rivals"]["resnetcore_torch"], row["rivals"]["torch_eager"]
    assert list(inside["faster"]) == ["torch_eager"] and inside["faster"]["torch_eager"] > 0
    assert report.fastest_inside(inside) == f"{inside['faster']['torch_eager']:.2f} (PyTorch eager)"
    assert report.fastest(row) == (eager["ratio"], "PyTorch eager")


def run_of(variant, ratios, gflops):
    rows = [
        {"gflops": g, "rivals": {"resnetcore": {"ratio": 1}, "jax_jit": {"ratio": r}, "torch_onednn": {"ratio": 0.1}}}
        for r, g in zip(ratios, gflops, strict=True)
    ]
    kind = {"mode": "train", "variant": variant, "precision": "float32", "products": "highest"}
    return kind | {"machine": {"isa": "avx512_amx"}, "limits": {"gflops": 100}, "rows": rows}


def test_aims_beside_what_was_reached_and_what_is_possible():
    first = run_of("identity", [4, 1, 1, 1, 1, 1], [50] * 6)
    second = run_of("norm", [3.5, 0.9, 0.8, 1, 1, 1], [25] * 6)
    *_, identity, norm = aims.aims_table([first, second]).splitlines()
    assert identity.startswith("| train, float32 | **4.00** of 3 (8) | 1.00 of 1.8 (2) |")
    assert norm.startswith("| train, float32, norm | 3.50 of 3.6 (14) | **0.90** of 0.9 (3.6) | 0.80 of 0.9 (3.2) |")
    high_run = run_of("identity", [2] * 6, [800] * 6) | {"products": "high"}
    assert aims.aims_table([first, high_run, second]).splitlines()[-1] == norm
    *_, high = aims.aims_table([high_run]).splitlines()
    assert high.startswith('| train, float32, "high" | 2.00 of 5 (1.33) |')
    assert aims.speed("bfloat16", "highest", "avx2") == 2 and aims.speed("float32", "high", "avx2") == 1
    assert len(aims.KINDS) == 8 and all(Case(TINY, **kind).operations for kind in aims.KINDS)


def test_memory_is_the_peak_of_building_and_of_steps(monkeypatch):
    if not memory.set_back():
        pytest.skip("the high-water mark cannot be set back here")

    def build(case, problem, threads):
        rows = case.shape.batch * 1024  # a KiB a row
        np.ones(2 * rows, "uint8")  # a compiler's, gone before the steps
        return lambda: np.ones(rows, "uint8").sum(), dict

    monkeypatch.setattr(memory.importlib, "import_module", lambda *_: types.SimpleNamespace(build=build))
    result = memory.grown("any", Case(Shape(65536, 4, 3)), 1)
    assert abs(result["memory_mib"] - 64) < 6
    assert abs(result["memory_first_mib"] - 128) < 6


def test_committed_results_fill_the_table():
    for file in (program.HERE / "results").glob("*-cpu*.json"):
        assert "| batch, width, layers |" in report.table(json.loads(file.read_text()))


def test_limits_and_roofline(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    found = limits.limits(1, 1 << 20)
    if not found:
        pytest.skip("there is no C++ compiler")
    assert all(found[name] > 0 for name in ("gflops", "memory_gb_s", "cache_gb_s"))
    case = Case(TINY)
    row = measure.measure(case, ("resnetcore",), 1, 0.0)
    assert row["operations"] / row["rivals"]["resnetcore"]["ms"] / 1e6 < found["gflops"]
    weights, rows = 5 * 16 * 16 + 16 * 10, 24
    assert case.operations == 2 * rows * weights * 3
    assert case.traffic == 4 * (rows * 16 + 3 * weights + 2 * rows * (5 * 16 + 10))
    run = {"limits": found, "rows": [row]}
    report.roofline(run, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").stat().st_size > 10_000


def test_sizes_are_compared_with_their_neighbours():
    rates = {point: 100.0 for point in sizes.points(2)}
    for width in {*sizes.ROUND, *sizes.ODD}:
        rates[Shape(sizes.BATCH, width, sizes.DEPTH), 2] = float(width)
    rates[Shape(sizes.BATCH, 96, sizes.DEPTH), 2] = 48.0
    rates[Shape(7, sizes.WIDTH, sizes.DEPTH), 2] = 128.0
    rates[Shape(sizes.BATCH, sizes.WIDTH, 64), 2] = 64.0
    rates[sizes.SHAPES[-1], 1] = 80.0
    shown = sizes.tables(rates, 2)
    assert "| 96 | 48 | 50% |" in shown
    assert "| 320 | 320 | 100% |" in shown
    assert "| 7 | 128 | 50% |" in shown
    assert "| 64 | 64 | 25% |" in shown
    assert "| 32, 128, 20 | 80 | 100 | 1.25 |" in shown


def test_a_result_tells_the_command_that_made_it(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(program, "run", lambda arguments: made.append(arguments))
    monkeypatch.setattr(program, "tuned_malloc", lambda: None)
    typed = "--variant norm --rivals resnetcore jax_jit --quick --seconds 8 --batch 7 --name x --no-memory"
    monkeypatch.setattr("sys.argv", ["benchmarks", *typed.split(), "--out", str(tmp_path)])
    program.main()
    (arguments,) = made
    again = arguments.made_by.removeprefix("python -m benchmarks ")
    assert sorted(again.split()) == sorted(typed.split())
    kind = {name: getattr(arguments, name) for name in ("variant", "mode", "optimizer", "precision", "device")}
    assert program.suffix(kind, arguments) == "-norm-batch7-x"


def test_all_measures_every_kind_and_the_first_ones_memory(monkeypatch):
    made = []
    monkeypatch.setattr(program, "run", lambda arguments: made.append(arguments))
    monkeypatch.setattr(program, "tuned_malloc", lambda: None)
    monkeypatch.setattr("sys.argv", ["benchmarks", "all", "--seconds", "5"])
    program.main()
    assert [a.memory for a in made] == [True] + [False] * (len(made) - 1)
    assert {a.made_by for a in made} == {"python -m benchmarks all --seconds 5"}
    kinds = {(a.mode, a.variant, a.precision, a.products, a.optimizer, a.batch) for a in made}
    assert len(kinds) == len(made) == len(aims.KINDS) + 2
    assert ("infer", "identity", "float32", "highest", "sgd", 1) in kinds
