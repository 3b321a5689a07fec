"""gpu_day.sh without a GPU: pieces that are done are not done again, and the README says what the newest results say."""

import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_aims, gpu_day, small_shapes

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_day.sh"
NAMES = subprocess.run([SCRIPT, "--list"], check=True, capture_output=True, text=True).stdout.split()
MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "driver": "580.159.04"}


@pytest.fixture
def day(tmp_path):
    """Runs the script with a `python3` that notes what it is asked for, fails where told, and has no GPU."""
    log, folder = tmp_path / "asked", tmp_path / "state"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *"$FAIL"*) exit 3 ;; esac\necho "12 passed"\n')
    python.chmod(0o755)

    def run(*arguments, fail="nothing at all"):
        log.write_text("")
        settings = {"PYTHON": python, "RESNETCORE_GPU_DAY": folder, "RESNETCORE_WHEELS": tmp_path, "FAIL": fail}
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        code = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True).returncode
        *asked, last = log.read_text().splitlines()
        assert last.startswith(f"-m benchmarks.gpu_day {folder}")
        return code, asked

    run.folder = folder
    return run


def test_a_piece_that_passed_is_not_done_again_and_one_that_failed_is(day):
    code, asked = day("build", "tests", fail="-m pytest -q")
    assert code == 1 and len(asked) == 3 and "--no-build-isolation" in asked[0] and "-m gpu" in asked[2]
    pieces = gpu_day.read_pieces(day.folder, ["build", "tests", "gates"])
    assert all(pieces[name].pop("seconds") < 100 for name in ("build", "tests"))
    assert pieces == {
        "build": {"state": "passed", "summary": "12 passed"},
        "tests": {"state": "failed", "summary": ""},
        "gates": {"state": "left"},
    }
    code, asked = day("build", "tests")
    assert code == 0 and len(asked) == 1 and "pytest" in asked[0]
    assert day("build", "tests") == (0, [])  # nothing but the results


def test_nothing_is_tried_without_a_build(day):
    code, asked = day(fail="pip install")
    assert code == 1 and len(asked) == 1
    code, asked = day(fail="benchmarks.small_shapes cuda")  # nor without a smoke test
    assert code == 1 and len(asked) == 3 and "small_shapes" in asked[-1]


def test_no_piece_begins_that_might_not_end_in_time(day):
    code, asked = day("--minutes", "5", "build", "gates")
    assert code == 2
    assert [line for line in asked if "pytest" in line and "test_cuda_build" in line] and len(asked) == 1


def test_pieces_that_look_at_no_clock_run_side_by_side(day):
    code, asked = day("--jobs", "3", "--limit", "7", "build", "gates", "tests", "hopper-smoke", "benchmark-speed")
    assert code == 0 and len(asked) == 6  # the build's two, and one for each other
    assert "benchmarks --device cuda" in asked[-1]  # when all others have ended
    states = gpu_day.read_pieces(day.folder, ["gates", "tests", "hopper-smoke", "benchmark-speed"])
    assert all(piece["state"] == "passed" for piece in states.values())


def test_resnetcores_own_wheel_is_installed_instead_of_built(day, tmp_path):
    (tmp_path / "resnetcore-0.1.0-py3-none-any.whl").touch()
    code, asked = day("build")
    assert code == 0 and str(tmp_path / "resnetcore-0.1.0") in asked[0]
    assert not any("--no-build-isolation" in line for line in asked)


def test_every_piece_fits_into_ten_minutes_and_has_its_row():
    limits = [int(limit) for limit in re.findall(r'"[\w$-]+\|(\d+)\|', SCRIPT.read_text())]
    assert len(limits) == 14 and max(limits) < 600
    assert len(NAMES) == len(set(NAMES))
    for name in NAMES:
        assert sum(name.startswith(of) for of in gpu_day.ROWS.values()) == 1, name


def test_the_readme_says_what_the_newest_results_say():
    day = gpu_day.newest(ROOT / "benchmarks" / "results")
    lines = gpu_day.README.read_text().splitlines()
    assert [row for row in lines if row.startswith("| CUDA")] == gpu_day.rows(day)
    assert all(lines.count(row) == 1 for row in gpu_day.rows_beside(day))
    assert gpu_day.measurements(day) in gpu_day.PERFORMANCE.read_text()


def results(states):
    pieces = {name: {"state": states.get(name, "passed"), "seconds": 1, "summary": "== 12 passed =="} for name in NAMES}
    return {"date": "2026-12-01", "commit": "abc1234", "machine": MACHINE, "pieces": pieces, "benchmarks": []}


def test_rows_of_results(tmp_path):
    on = "NVIDIA H100 80GB HBM3, driver 580.159.04, 2026-12-01, commit abc1234"
    hopper, others = "CUDA: Hopper's path in bfloat16", "CUDA: other paths in bfloat16"
    norms, ampere = "CUDA: norms in chains, slopes in bits", "CUDA: the path of compute capability 8.0 in bfloat16"
    assert gpu_day.rows(results({})) == [
        f"| CUDA: build and gates | {gpu_day.ALWAYS['CUDA: build and gates']}passed, all 3 pieces; {on} |",
        f"| CUDA: tests on a GPU | passed (12 passed); {on} |",
        f"| CUDA: compute-sanitizer | passed, all 12 pieces; {on} |",
        f"| CUDA: speed | passed, all 9 pieces; {on} |",
        f"| {hopper} | {gpu_day.ALWAYS[hopper]}passed (12 passed); {on} |",
        f"| {others} | {gpu_day.ALWAYS[others]}passed, all 14 pieces; {on} |",
        f"| {norms} | {gpu_day.ALWAYS[norms]}passed, all 7 pieces; {on} |",
        f"| {ampere} | {gpu_day.ALWAYS[ampere]}passed, all 7 pieces; {on} |",
    ]
    older = results({})
    older["pieces"] = {name: piece for name, piece in older["pieces"].items() if not name.startswith("ampere")}
    assert gpu_day.rows(older)[-1] == f"| {ampere} | {gpu_day.ALWAYS[ampere]}never run on a GPU |"
    _, tests, sanitizer, *_ = gpu_day.rows(results({"tests": "failed", "racecheck-float32": "left"}))
    assert tests == f"| CUDA: tests on a GPU | failed: tests (12 passed); {on} |"
    assert "not run: racecheck-float32" in sanitizer and "passed: memcheck-float32" in sanitizer
    pieces = {"tests": {"state": "failed", "summary": "== 1 failed, 3 passed =="}, "tests-more": {"state": "stopped"}}
    assert (
        gpu_day.describe(pieces, ("tests",))
        == "failed: tests (1 failed, 3 passed); stopped by its time limit: tests-more"
    )
    day = results({}) | {"note": "so"}
    assert gpu_day.rows(day)[1] == f"| CUDA: tests on a GPU | passed (12 passed); {on}; so |"


def test_the_newest_results_replace_the_rows(tmp_path):
    for date, state in (("2026-12-01", "failed"), ("2026-12-02", "passed")):
        (tmp_path / f"{date}-gpu-day-h100.json").write_text(json.dumps(results({"tests": state})))
    assert gpu_day.newest(tmp_path)["pieces"]["tests"]["state"] == "passed"
    document = tmp_path / "README.md"
    names = list(gpu_day.BESIDE)
    beside = "".join(f"| {name} | old |\n" for name in names)
    document.write_text(f"| before | x |\n| CUDA | old |\n| CUDA: more | old |\n| after | y |\n{beside}")
    for day in (None, results({})):
        gpu_day.put_rows(document, day)
        before, *rows, after = document.read_text().splitlines()[: -len(names)]
        assert [before, *rows, after] == ["| before | x |", *gpu_day.rows(day), "| after | y |"]
        rest = document.read_text().splitlines()[-len(names) :]
        assert rest == gpu_day.rows_beside(day) and all(("never run on a GPU" in row) == (day is None) for row in rest)


def test_aims_of_a_gpu():
    shape = gpu_aims.GPU_SHAPES[4]
    rivals = {"resnetcore": {"ms": 1.0}, "torch_eager": {"ratio": 1.5}, "torch_graph": {"ratio": 1.19}}
    row = {"shape": dataclasses.asdict(shape), "gflops": 250e3, "rivals": rivals | {"torch_compile": {"missing": "it"}}}
    run = {
        "mode": "infer",
        "variant": "identity",
        "precision": "bfloat16",
        "machine": {"path": "hopper"},
        "rows": [row],
    }
    *_, line = gpu_aims.table([run | {"machine": {}}, run], "hopper").splitlines()
    assert line == "| 8192, 1024, 16 | infer | 1.000 | 250 | **1.50** of 1.4 | 1.19 of 1.2 | – |"
    assert len(gpu_aims.table([run], "simple").splitlines()) == 2
    assert gpu_aims.cell({"torch_eager": {"ratio": 2.0}}, ("torch_eager",), None) == "2.00"


def test_gathered_results_hold_the_benchmarks(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "2026-12-01-cuda.json").write_text('{"rows": []}')
    day = gpu_day.gather(tmp_path, ["tests"], MACHINE)
    assert day["benchmarks"] == [{"rows": []}] and day["pieces"] == {"tests": {"state": "left"}}


def test_results_say_which_sanitizer_ran(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_day, "gpu", lambda: MACHINE)
    monkeypatch.setattr(gpu_day, "machine", lambda *_: dict(MACHINE))
    monkeypatch.setenv("PATH", str(tmp_path))

    def machine():
        assert gpu_day.main([str(tmp_path), str(tmp_path / "results"), "tests"]) == 0
        return gpu_day.newest(tmp_path / "results")["machine"]

    assert "compute_sanitizer" not in machine()  # there is none
    program = tmp_path / "compute-sanitizer"
    words = "NVIDIA (R) Compute Sanitizer\\nCopyright (c) 2020-2025 NVIDIA Corporation\\nVersion 2025.3.0.0 (build 36322233)"
    program.write_text(f'#!/bin/sh\nprintf "{words}\\n"\n')
    program.chmod(0o755)
    assert machine()["compute_sanitizer"] == "2025.3.0.0"
    program.write_text("#!/bin/sh\necho unknown\n")
    assert machine()["compute_sanitizer"] == "unknown"


def test_small_shapes_train_alike_on_the_same_device(capsys):
    small_shapes.main("cpu", "float64")
    assert "5 kinds of training agree" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_blocks_and_stacks_of_small_shapes_agree(device, dtype, monkeypatch):
    small_shapes.compare(device, dtype, small_shapes.KINDS[dtype, "highest"])
    monkeypatch.setattr(small_shapes, "stack", lambda device, *_: [np.ones(3) if device == "cpu" else np.zeros(3)])
    with pytest.raises(RuntimeError, match=f"{dtype}, 5 rows: {device} differs by 1.7"):
        small_shapes.compare(device, dtype, 1e-3)


def test_small_shapes_see_a_device_that_computes_something_else(monkeypatch):
    monkeypatch.setattr(small_shapes, "final_loss", lambda device, *_: 1.0 if device == "cpu" else 1.2)
    with pytest.raises(RuntimeError, match=r"the loss is 1\.2 on cuda, 1\.0 on the CPU"):
        small_shapes.main("cuda")
