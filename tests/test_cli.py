"""The command line: what each command writes, one clear line for each mistake, and a run that survives Ctrl-C."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import resnetcore as rc
from resnetcore.cli import main

FAST = ["--width", "8", "--depth", "4", "--batch-size", "32", "--quiet"]


@pytest.fixture
def table(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((200, 3)) * [1, 100, 0.01] + [5, 0, 3]
    path = tmp_path / "table.csv"
    with path.open("w") as file:
        file.write("alpha,beta,gamma,value,kind\n")
        for a, b, c in x:
            file.write(f"{a},{b},{c},{3 * a + b / 50},{'cat' if b > 0 else 'dog'}\n")
    return str(path)


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_classes_by_name_from_csv(capsys, table, tmp_path):
    out = tmp_path / "run"
    status, printed, _ = run(
        capsys, "train", table, "--drop", "value", "--epochs", 30, "--lr", 0.01, "--out", out, *FAST
    )
    assert status == 0 and "validation accuracy" in printed
    assert {p.name for p in out.iterdir()} >= {"net.safetensors", "checkpoint.safetensors", "run.json", "history.csv"}
    assert len(rows_of((out / "history.csv").read_text())) == 30
    status, printed, _ = run(capsys, "predict", out, table, "--proba")
    found = rows_of(printed)
    truth = [row["kind"] for row in rows_of(Path(table).read_text())]
    assert np.mean([row["kind"] == kind for row, kind in zip(found, truth, strict=True)]) > 0.9
    assert all(abs(float(row["p(cat)"]) + float(row["p(dog)"]) - 1) < 1e-6 for row in found)


def test_predictions_of_a_number_are_in_its_own_units_and_columns_may_move(capsys, table, tmp_path):
    out = tmp_path / "run"
    arguments = ["--target", "value", "--drop", "kind", "--epochs", 60, "--lr", 0.01, "--out", out]
    assert run(capsys, "train", table, *arguments, *FAST)[0] == 0
    rows = rows_of(Path(table).read_text())
    moved = tmp_path / "moved.csv"
    moved.write_text("gamma;beta;alpha\n" + "".join(f"{r['gamma']};{r['beta']};{r['alpha']}\n" for r in rows))
    assert run(capsys, "predict", out, moved, "--out", tmp_path / "p.csv")[0] == 0
    found = np.array([float(row["value"]) for row in rows_of((tmp_path / "p.csv").read_text())])
    truth = np.array([float(row["value"]) for row in rows])
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    assert abs(found.mean() - truth.mean()) < truth.std()


def test_a_network_without_a_run_takes_columns_as_they_are(capsys, tmp_path):
    net = rc.models.plain(3, 2, 4, 3)
    net.save(tmp_path / "net.safetensors")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    status, printed, _ = run(capsys, "predict", tmp_path / "net.safetensors", tmp_path / "x.npy")
    found = [[float(row["output0"]), float(row["output1"])] for row in rows_of(printed)]
    assert status == 0
    np.testing.assert_array_equal(np.float32(found), net.predict(x))


def test_arrays_by_name(capsys, tmp_path):
    x = np.random.default_rng(0).standard_normal((60, 4))
    np.savez(tmp_path / "d.npz", X=x, y=(x[:, 0] > 0).astype(int))
    status, _, _ = run(
        capsys, "train", tmp_path / "d.npz", "--target", "y", "--epochs", 1, "--out", tmp_path / "r", *FAST
    )
    assert status == 0
    described = json.loads((tmp_path / "r" / "run.json").read_text())["preparation"]
    assert described["inputs"] == ["0", "1", "2", "3"] and described["classes"] == ["0", "1"]


@pytest.mark.parametrize(
    "model", ["plain", "resnet", "highway", "gated_highway", "densenet", "preact_resnet", "tabular_resnet"]
)
def test_every_model_trains(capsys, table, tmp_path, model):
    arguments = [
        "--model",
        model,
        "--optimizer",
        "sgd",
        "--schedule",
        "cosine",
        "--epochs",
        2,
        "--out",
        tmp_path / model,
    ]
    assert run(capsys, "train", table, *arguments, *FAST)[0] == 0


def test_a_resumed_run_ends_as_the_uninterrupted_one(capsys, table, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(capsys, "train", table, "--epochs", 4, "--out", whole, *FAST)[0] == 0
    assert run(capsys, "train", table, "--epochs", 2, "--out", parts, *FAST)[0] == 0
    assert run(capsys, "train", "--resume", "--epochs", 4, "--out", parts, "--quiet")[0] == 0
    for name in ("net.safetensors", "checkpoint.safetensors", "history.csv", "run.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_a_resumed_run_with_patience_keeps_the_same_best(capsys, table, tmp_path):
    """Of any epoch's checkpoint: the network of an uninterrupted run, also where it had stopped, or was at its end."""
    whole = tmp_path / "whole"
    arguments = ["train", table, "--drop", "value", "--patience", 3, "--lr", 0.05, "--epochs", 25, *FAST]
    assert run(capsys, *arguments, "--out", whole)[0] == 0
    losses = [float(row["val_loss"]) for row in rows_of((whole / "history.csv").read_text())]
    assert 3 < len(losses) < 25 and losses.index(min(losses)) == len(losses) - 4
    for epochs in (1, len(losses) - 3, len(losses) - 1, len(losses)):
        parts = tmp_path / str(epochs)
        assert run(capsys, *arguments, "--out", parts, "--epochs", epochs)[0] == 0
        for _ in range(2):
            assert run(capsys, "train", "--resume", "--epochs", 25, "--out", parts, "--quiet")[0] == 0
            for name in ("net.safetensors", "checkpoint.safetensors", "history.csv", "run.json"):
                assert (whole / name).read_bytes() == (parts / name).read_bytes(), (epochs, name)


def test_a_resume_that_fails_leaves_the_run_as_it_was(capsys, table, tmp_path):
    out, lines = tmp_path / "run", Path(table).read_text().splitlines(keepends=True)
    arguments = ["--schedule", "cosine", "--epochs", 2, "--out", out, *FAST]
    assert run(capsys, "train", table, *arguments)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    narrow, short, cats = (tmp_path / name for name in ("narrow.csv", "short.csv", "cats.csv"))
    narrow.write_text("".join(line.partition(",")[2] for line in lines))
    short.write_text("".join(lines[:150]))
    cats.write_text("".join(lines).replace("dog", "cow"))
    for given, message in (
        ([narrow], "there is no column 'alpha'"),
        ([short], "has 149 rows, the run in .* was begun with 200"),
        ([cats], "'cow', which is none of this run's classes"),
        ([], "learning rate of 0.0 at step"),  # the schedule's length is that of two epochs
    ):
        status, _, error = run(capsys, "train", "--resume", "--epochs", 9, "--out", out, *given)
        assert status == 2 and re.search(message, error), error
        assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert run(capsys, "train", "--resume", "--out", out, "--quiet")[0] == 0


def test_a_run_that_cannot_begin_leaves_no_folder(capsys, table, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,0\n2,1\n")
    status, _, error = run(capsys, "train", path, "--validation", 0.5, "--out", tmp_path / "run", *FAST)
    assert status == 2 and "at least 2 rows" in error and not (tmp_path / "run").exists()


def test_ctrl_c_before_the_first_step_changes_no_run(capsys, table, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert run(capsys, "train", table, "--epochs", 1, "--out", out, *FAST)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def press(*unused):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnetcore.trainer.prepare", press)
    for given in (["--resume", "--out", out], [table, "--out", out, "--overwrite"], [table, "--out", tmp_path / "new"]):
        assert run(capsys, "train", *given, "--quiet")[0] == 130
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(table, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "resnetcore", "train", table, "--epochs", "100000", "--out", str(out), *FAST]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    stopped = re.search(r"stopped in epoch (\d+) after step (\d+).*resnetcore train --resume --out", error)
    assert stopped and "Traceback" not in error
    assert rc.Trainer.resume(out / "checkpoint.safetensors").steps == int(stopped[2])
    more = str(int(stopped[1]) + 1)
    subprocess.run([*command[:4], "--resume", "--epochs", more, "--out", str(out), "--quiet"], check=True)
    assert len(rows_of((out / "history.csv").read_text())) == int(more)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n", "the table has no rows"),
        ("a,a\n1,2\n", "must name each column, each once, got a, a\n"),
        ("a,\n1,2\n", "must name each column, each once, got a, ''\n"),
        (",a\n0,2\n", "got '', a; the first is unnamed, as an index is that pandas wrote"),
        ("a,b\n1\n", "row 1 has 1 cells, the header names 2"),
        ("a,b\n1,0\nx,1\n1,1\n", "column 'a' has 'x' in row 2, no number; encode it"),
        ("a,b\n1,0\n,1\n1,1\n", "column 'a' has '' in row 2, no number; fill it in"),
        ("a,b\n1,0\nnan,1\n1,1\n", "column 'a' has nan in row 2; fill it in"),
        ("a,b\n1,5\n2,5\n3,5\n", "column 'b' must have two different values"),
        ("b\n1\n2\n", "no column left"),
    ],
)
def test_tables_that_are_none(capsys, tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    status, _, error = run(capsys, "train", path, "--validation", 0, "--out", tmp_path / "run", *FAST)
    assert status == 2 and message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def damaged_npz(kind):
    """Bytes of a .npz file that is none."""
    if kind == "truncated":
        return b"PK\x03\x04 and no more"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt" if kind == "of texts" else "x.npy", b"x" * 10_000)
    content = bytearray(file.getvalue())
    if kind == "garbled":
        content[40:50] = b"\xff" * 10  # of the compressed bytes
    return bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "garbled", "of texts", "of bytes"])
def test_archives_that_are_no_arrays(capsys, tmp_path, kind):
    path = tmp_path / "bad.npz"
    path.write_bytes(damaged_npz(kind))
    status, _, error = run(capsys, "train", path, "--out", tmp_path / "run", *FAST)
    assert status == 2 and "bad.npz: " in error and "NumPy array" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train"], "which table"),
        (["train", "no.csv"], "No such file"),
        (["train", "no.xlsx"], "tables are"),
        (["train", "{table}", "--target", "x"], "there is no column 'x'; there are alpha"),
        (["train", "{table}", "--depth", "1"], "depth"),
        (["train", "{table}", "--lr", "-1"], "lr must be above 0"),
        (["train", "{table}", "--seed", "-1"], "train: seed must be from 0 to 2**64 - 1, got -1"),
        (["train", "{table}", "--validation", "1"], "--validation must be in [0, 1)"),
        (["train", "{table}", "--model", "x"], "invalid choice"),
        (["train", "--resume", "--lr", "1"], "--lr belongs to a new run"),
        (["train", "--resume"], "No such file"),
        (["predict", "no.safetensors", "{table}"], "No such file"),
        (["info", "--plan", "{table}"], "table.csv"),
        (["bench", "--json", "nowhere/numbers.json"], "nowhere/: No such file"),
        (["nothing"], "invalid choice"),
        ([], "required"),
    ],
)
def test_mistakes_get_one_line(capsys, table, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(capsys, *(a.replace("{table}", table) for a in arguments))
    assert status == 2 and message in error
    assert len(error.splitlines()) == 1


def test_a_run_is_not_overwritten_unasked(capsys, table, tmp_path):
    arguments = ["train", table, "--epochs", 1, "--out", tmp_path / "run", *FAST]
    assert run(capsys, *arguments)[0] == 0
    status, _, error = run(capsys, *arguments)
    assert status == 2 and "--resume" in error and "--overwrite" in error
    assert run(capsys, *arguments, "--overwrite")[0] == 0


def test_info_and_version(capsys, table, tmp_path):
    status, printed, _ = run(capsys, "info")
    assert status == 0 and "threads" in printed
    rc.models.resnet(3, 2, 4, 6).save(tmp_path / "net.safetensors")
    status, printed, _ = run(capsys, "info", "--plan", tmp_path / "net.safetensors")
    assert status == 0 and "identity from" in printed and "trained parameters" in printed
    assert run(capsys, "--version")[1] == f"resnetcore {rc.__version__}\n"
    assert run(capsys, "train", "--help")[0] == 0


def test_bench_checks_and_times(capsys, tmp_path, monkeypatch):
    from resnetcore.cli import bench

    monkeypatch.setattr(bench, "SHAPES", ((32, 16, 4),))
    assert run(capsys, "bench", "--quick", "--json", tmp_path / "b.json")[0] == 0
    (found,) = json.loads((tmp_path / "b.json").read_text())
    assert found["step_ms"] > 0 and found["gflops"] > 0
    monkeypatch.setattr(bench, "TOLERANCE", 0.0)
    status, _, error = run(capsys, "bench", "--quick")
    assert status == 2 and "do not trust this build" in error


def test_an_overwritten_run_leaves_nothing_behind(capsys, table, tmp_path, monkeypatch):
    """Or the old network would be taken for one of the new run, with the new run's columns and classes."""
    out = tmp_path / "run"
    assert run(capsys, "train", table, "--drop", "value", "--epochs", 1, "--out", out, *FAST)[0] == 0

    def interrupted(trainer, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnetcore.data.ArrayData.begin", interrupted)
    arguments = ["--target", "value", "--drop", "kind", "--epochs", 1, "--out", out, "--overwrite", *FAST]
    assert run(capsys, "train", table, *arguments)[0] == 130
    assert {file.name for file in out.iterdir()} == {"checkpoint.safetensors", "run.json"}
    status, _, error = run(capsys, "predict", out, table)
    assert status == 2 and "net.safetensors" in error


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1.5", "2.25", "-3.0", "NA"] * 10, "column 'y' has 'NA' in row 4, no number"),
        (["0", "1", "nan", "1"] * 10, "column 'y' has nan in row 3"),
        ([*map(str, range(39)), "?"], "column 'y' has '?' in row 40, no number"),
        (map(str, range(1000, 1040)), "(a number)"),
        (["0", "1", "2", "1"] * 10, "(3 classes)"),
        (["0", "1", "?", "1"] * 10, "(3 classes)"),
        (["a", "b"] * 20, "(2 classes)"),
    ],
)
def test_what_a_target_looks_like(capsys, tmp_path, cells, found):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7},{cell}\n" for i, cell in enumerate(cells)))
    _, _, error = run(capsys, "train", path, "--epochs", 1, "--out", tmp_path / "run", *FAST[:-1])
    assert found in error


@pytest.mark.parametrize("column", ["x", "y"])
def test_numbers_too_large_to_standardise(capsys, tmp_path, column):
    rows = [(f"{i}.5e300" if column == "x" else i, f"{i}.5e300" if column == "y" else f"{i}.5") for i in range(1, 41)]
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    status, _, error = run(capsys, "train", path, "--epochs", 1, "--out", tmp_path / "run", *FAST)
    assert status == 2 and f"column '{column}' holds numbers whose squares overflow" in error
    assert not (tmp_path / "run").exists()


def test_numbers_too_large_to_predict_from(capsys, table, tmp_path):
    """float32 would make them infinite, and a prediction of that a class like any other."""
    assert run(capsys, "train", table, "--epochs", 1, "--out", tmp_path / "run", *FAST)[0] == 0
    header, *rows = Path(table).read_text().splitlines()
    far = tmp_path / "far.csv"
    far.write_text("\n".join([header, rows[0], ",".join(["1e300", *rows[1].split(",")[1:]])]) + "\n")
    status, _, error = run(capsys, "predict", tmp_path / "run", far)
    assert status == 2 and "far.csv: column 'alpha' has a number in row 2 that is too far" in error
    assert len(error.splitlines()) == 1


def test_a_network_without_a_run_takes_numbers_of_any_size(capsys, tmp_path):
    """What its dtype cannot hold is infinite, as in `Network.predict`, and no warning is written."""
    rc.Network(2, [rc.Layer(1, activation=None)]).save(tmp_path / "net.safetensors")
    (tmp_path / "t.csv").write_text("a,b\n1e300,0\n")
    status, out, error = run(capsys, "predict", tmp_path / "net.safetensors", tmp_path / "t.csv")
    assert status == 0 and "inf" in out and not error


@pytest.mark.parametrize("arguments", [["--version"], ["info"], ["predict", "net.safetensors", "t.csv"]])
def test_a_standard_output_that_is_closed(tmp_path, arguments):
    rc.Network(2, [rc.Layer(1)]).save(tmp_path / "net.safetensors")
    (tmp_path / "t.csv").write_text("a,b\n1,0\n")
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "resnetcore", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_momentum_of_another_optimizer(capsys, table, tmp_path):
    status, _, error = run(capsys, "train", table, "--momentum", 0.5, "--out", tmp_path / "run", *FAST)
    assert status == 2 and "--momentum belongs to sgd, not to adamw" in error
