"""A training that was stopped, killed or interrupted at any step and resumed ends in the file of one that was not."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import resnetcore as rc

rng = np.random.default_rng(5)
X, Y = rng.normal(size=(37, 6)).astype(np.float32), rng.integers(0, 3, 37)
EPOCHS, BATCH = 4, 8
PER_EPOCH = 5

LAYERS = [
    rc.Layer(9, norm="batch"),
    rc.Layer(9, norm="batch", dropout=0.2, skips={2: "learned"}),
    rc.Layer(9, skips={2: "identity"}, branch_dropout=0.1),
    rc.Layer(9, gate=True),
    rc.Layer(3, activation=None),
]
CASES = {
    "SGD": {"optimizer": rc.SGD(lr=0.05)},
    "momentum": {
        "optimizer": rc.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3),
        "schedule": rc.schedules.Cosine(warmup=3),
    },
    "Nesterov, clipped": {"optimizer": rc.SGD(lr=0.05, momentum=0.9, nesterov=True), "clip_norm": 0.5},
    "Adam, one-cycle": {"optimizer": rc.Adam(lr=0.01, betas=(0.8, 0.99)), "schedule": rc.schedules.OneCycle()},
    "AdamW, micro-batches": {"optimizer": rc.AdamW(lr=0.01, decay="weights"), "accumulate": 2},
    "class weights": {"label_smoothing": 0.1, "class_weight": {1: 2.5}},
}


def make_trainer(**settings):
    return rc.Trainer(rc.Network(6, LAYERS, seed=2), batch_size=BATCH, seed=11, **settings)


def fit(trainer, callbacks=(), epochs=EPOCHS):
    trainer.fit(X, Y, epochs=epochs, validation=(X[:9], Y[:9]), callbacks=callbacks, progress=False)


class SaveAt(rc.Callback):
    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_step_end(self, trainer, loss):
        if trainer.steps == self.step:
            trainer.save(self.path)


class StopAt(rc.Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, loss):
        if trainer.steps == self.step:
            trainer.stop()


def bytes_of(trainer, path):
    trainer.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_resumed_at_any_step_equals_uninterrupted(tmp_path, case):
    whole = make_trainer(**CASES[case])
    steps = (1, 4, PER_EPOCH, PER_EPOCH + 1, 3 * PER_EPOCH - 1, EPOCHS * PER_EPOCH)
    saves = {step: tmp_path / str(step) for step in steps}
    fit(whole, [SaveAt(path, step) for step, path in saves.items()])
    expected = bytes_of(whole, tmp_path / "whole")
    for path in saves.values():
        resumed = rc.Trainer.resume(path)
        fit(resumed)
        assert bytes_of(resumed, tmp_path / "resumed") == expected


def test_stopped_and_resumed_after_every_step_equals_uninterrupted(tmp_path):
    whole = make_trainer(**CASES["momentum"])
    fit(whole)
    path = tmp_path / "run"
    trainer = make_trainer(**CASES["momentum"])
    for step in range(1, EPOCHS * PER_EPOCH + 1):
        fit(trainer, [StopAt(step)])
        trainer.save(path)
        trainer = rc.Trainer.resume(path)
    fit(trainer)
    assert bytes_of(trainer, path) == bytes_of(whole, tmp_path / "whole")


OTHER = (X[::-1].copy(), (Y + 1) % 3)  # gets worse as training gets better


def stopping_fit(trainer, *callbacks, first=()):
    stopping = rc.EarlyStopping(patience=3, min_delta=1e-3)
    trainer.fit(X, Y, epochs=20, validation=OTHER, callbacks=[*first, stopping, *callbacks], progress=False)
    return stopping.best_epoch


@pytest.mark.parametrize("order", ["before", "after"])
def test_early_stopping_restores_the_same_in_a_resumed_run(tmp_path, order):
    """Saved after every step, and after every epoch before and after the callback's own turn."""
    files = tmp_path / "{step}", tmp_path / "{step} end"
    saves = [rc.Checkpoint(files[0], every=1), rc.Checkpoint(files[1])]
    whole = make_trainer(**CASES["momentum"])
    best = stopping_fit(whole, first=saves) if order == "before" else stopping_fit(whole, *saves)
    saved = sorted(tmp_path.iterdir())
    expected = bytes_of(whole, tmp_path / "whole")
    assert 1 < best < whole.epoch < 20
    assert len(saved) == whole.epoch * (PER_EPOCH + 1)
    for path in saved:
        resumed = rc.Trainer.resume(path)
        assert stopping_fit(resumed) == best
        assert bytes_of(resumed, tmp_path / "resumed") == expected, path


def test_early_stopping_restores_the_same_after_interruptions(tmp_path):
    whole, path = make_trainer(**CASES["momentum"]), tmp_path / "run"
    stopping_fit(whole)
    trainer = make_trainer(**CASES["momentum"])
    for step in range(1, whole.steps + 1):
        stopping_fit(trainer, StopAt(step))
        trainer.save(path)
        trainer = rc.Trainer.resume(path)
    stopping_fit(trainer)
    assert bytes_of(trainer, path) == bytes_of(whole, tmp_path / "whole")
    stopping_fit(trainer)  # stays stopped
    assert bytes_of(trainer, path) == bytes_of(whole, tmp_path / "whole")
    trainer.fit(X, Y, 20, validation=OTHER, callbacks=[rc.EarlyStopping(patience=9, min_delta=1e-3)], progress=False)
    assert trainer.epoch > whole.epoch


def test_best_weights_are_restored_though_nothing_is_left_to_do(tmp_path):
    """A run that was killed after its last epoch's checkpoint, before its end."""
    whole, path = make_trainer(), tmp_path / "run"
    stopping = rc.EarlyStopping(patience=9)
    whole.fit(X, Y, 4, validation=OTHER, callbacks=[stopping, rc.Checkpoint(path)], progress=False)
    resumed = rc.Trainer.resume(path)
    resumed.fit(X, Y, 4, validation=OTHER, callbacks=[rc.EarlyStopping(patience=9)], progress=False)
    assert stopping.best_epoch < 4
    assert bytes_of(resumed, path) == bytes_of(whole, tmp_path / "whole")


def test_resumed_on_another_number_of_threads_equals_uninterrupted(tmp_path):
    whole = make_trainer(**CASES["momentum"])
    fit(whole, [SaveAt(tmp_path / "run", 7)])
    threads = rc.get_num_threads()
    try:
        rc.set_num_threads(3)
        resumed = rc.Trainer.resume(tmp_path / "run")
        fit(resumed)
    finally:
        rc.set_num_threads(threads)
    assert bytes_of(resumed, tmp_path / "run") == bytes_of(whole, tmp_path / "whole")


def test_single_steps_after_resuming_equal_those_without(tmp_path):
    trainer = make_trainer(**CASES["Adam, one-cycle"])
    fit(trainer, epochs=1)
    trainer.save(tmp_path / "run")
    resumed = rc.Trainer.resume(tmp_path / "run")
    trainer.schedule = resumed.schedule = rc.schedules.Constant()
    for _ in range(3):
        assert trainer.step(X, Y) == resumed.step(X, Y)
    assert bytes_of(resumed, tmp_path / "a") == bytes_of(trainer, tmp_path / "b")


def test_saving_changes_nothing(tmp_path):
    trainer, other = make_trainer(), make_trainer()
    fit(trainer, [rc.Checkpoint(tmp_path / "run", every=1)])
    fit(other)
    assert bytes_of(trainer, tmp_path / "a") == bytes_of(other, tmp_path / "b")


def test_a_save_that_fails_changes_neither_file_nor_trainer(tmp_path):
    trainer = make_trainer()
    fit(trainer, epochs=1)
    before = bytes_of(trainer, tmp_path / "run")
    for bad in (tmp_path, tmp_path / "no" / "folder", tmp_path / "run" / "below a file"):
        with pytest.raises(OSError):
            trainer.save(bad)
    assert bytes_of(trainer, tmp_path / "again") == before == (tmp_path / "run").read_bytes()


TRAINING = textwrap.dedent("""
    import os, sys
    sys.path[:0] = sys.argv[2:]
    import resnetcore as rc
    from test_checkpoint_resume import EPOCHS, CASES, fit, make_trainer
    path = sys.argv[1]
    trainer = rc.Trainer.resume(path) if os.path.exists(path) else make_trainer(**CASES["momentum"])
    print("ready", flush=True)
    fit(trainer, [rc.Checkpoint(path, every=1)], epochs=12 * EPOCHS)
    trainer.save(path)
""")


def start_training(path):
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", TRAINING, path, here]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_any_time_and_resumed_equals_uninterrupted(tmp_path, deadly):
    path, killed, delays = tmp_path / "run", 0, np.random.default_rng(int(deadly))
    for attempt in range(4):
        training = start_training(path)
        assert training.stdout.readline() == "ready\n", training.stderr.read()
        time.sleep(delays.uniform(0.0, 0.02 * attempt))
        training.send_signal(deadly)
        training.communicate()
        killed += training.returncode == -deadly
        if path.exists():
            rc.Trainer.resume(path)
    training = start_training(path)
    _, error = training.communicate()
    assert training.returncode == 0, error
    assert killed > 0
    whole = make_trainer(**CASES["momentum"])
    fit(whole, epochs=12 * EPOCHS)
    assert path.read_bytes() == bytes_of(whole, tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["run", "whole"]
