"""One trainer, several threads, signals and forks: nothing is done twice, nothing is seen half done, nothing hangs."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import resnetcore as rc

rng = np.random.default_rng(3)
X = rng.standard_normal((256, 8)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
PER_EPOCH = 16
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks of POSIX")


def make(width=16):
    net = rc.models.resnet(8, 2, width, 6, norm="batch", seed=1)
    return rc.Trainer(net, optimizer=rc.Adam(lr=1e-3), batch_size=16, seed=2)


class AtStep(rc.Callback):
    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, trainer, loss):
        if trainer.steps == self.step:
            self.action(trainer)


class Running:
    """A `fit` in a thread of its own, which stands in its third step's callback until the context's end."""

    def __init__(self, trainer, epochs=2):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(
            target=trainer.fit, args=(X, Y, epochs), kwargs={"callbacks": [AtStep(3, self._wait)]}
        )

    def _wait(self, trainer):
        self.reached.set()
        assert self.go_on.wait(30)

    def __enter__(self):
        self.thread.start()
        assert self.reached.wait(30)

    def __exit__(self, *error):
        self.go_on.set()
        self.thread.join()


def bits(arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()


def test_the_arrays_of_a_network_in_training_are_of_one_moment():
    trainer, alone, steps = make(), make(), 300
    names = [lambda net: net.parameters(), lambda net: net.buffers(), lambda net: net.__reduce__()[1][-1]]
    moments = {bits(copies(alone.net)) for copies in names}
    for _ in range(steps):
        alone.step(X, Y)
        moments |= {bits(copies(alone.net)) for copies in names}
    thread = threading.Thread(target=lambda: [trainer.step(X, Y) for _ in range(steps)])
    thread.start()
    seen = set()
    while thread.is_alive():
        seen |= {bits(copies(trainer.net)) for copies in names}
    thread.join()
    assert seen <= moments and len(seen) > 10


@pytest.mark.parametrize(
    "call",
    [
        lambda trainer: trainer.fit(X, Y, epochs=3),
        lambda trainer: trainer.step(X, Y),
        lambda trainer: trainer.step(X.tolist(), Y),
        lambda trainer: trainer.restart_epoch(),
        lambda trainer: trainer.set_state(trainer.state()),
    ],
)
def test_another_threads_fit_is_not_disturbed(call):
    trainer, alone = make(), make()
    alone.fit(X, Y, epochs=2)
    with Running(trainer), pytest.raises(rc.BusyError, match="another thread"):
        call(trainer)
    assert (trainer.steps, trainer.epoch, trainer.history.epochs) == (2 * PER_EPOCH, 2, 2)
    assert repr(trainer.state()) == repr(alone.state())
    assert issubclass(rc.BusyError, rc.ResnetcoreError) and issubclass(rc.BusyError, RuntimeError)
    call(trainer)


def test_many_threads_fit_and_one_wins():
    trainer = make()

    def work():
        with contextlib.suppress(rc.BusyError):
            trainer.fit(X, Y, epochs=4)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (trainer.steps, trainer.epoch, trainer.history.epochs) == (4 * PER_EPOCH, 4, 4)


def test_steps_of_several_threads_take_turns():
    trainer = make()
    threads = [threading.Thread(target=lambda: [trainer.step(X, Y) for _ in range(50)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trainer.steps == 150


def test_a_fit_inside_itself_is_refused():
    trainer = make()
    with pytest.raises(rc.BusyError, match="part of"):
        trainer.fit(X, Y, callbacks=[AtStep(2, lambda trainer: trainer.fit(X, Y, epochs=9))])
    trainer.fit(X, Y)
    assert trainer.steps == PER_EPOCH


def digest(trainer):
    state = trainer.state()
    arrays = {**trainer.net.parameters(), **trainer.net.buffers(), **state.pop("optimizer")}
    return hashlib.sha256(repr(state).encode() + b"".join(a.tobytes() for a in arrays.values())).digest()


class Digests(rc.Callback):
    def __init__(self):
        self.found = set()

    def on_step_end(self, trainer, loss):
        self.found.add(digest(trainer))

    def on_epoch_end(self, trainer, metrics):
        self.found.add(digest(trainer))


def test_what_another_thread_saves_is_of_one_moment(tmp_path):
    """It is in every bit what a run without other threads is between two of its steps."""
    trainer, alone, saves = make(64), make(64), []
    thread = threading.Thread(target=trainer.fit, args=(X, Y, 10**6))
    thread.start()
    try:
        for _ in range(8):
            trainer.save(tmp_path / "run")
            saves.append(rc.Trainer.resume(tmp_path / "run"))
    finally:
        trainer.stop()
        thread.join()
    expected = Digests()
    expected.found.add(digest(alone))
    alone.fit(X, Y, epochs=trainer.epoch + 1, callbacks=[expected])
    assert len({saved.steps for saved in saves}) > 3
    assert all(digest(saved) in expected.found for saved in saves)


@posix
def test_what_a_signals_handler_saves_is_of_one_moment(tmp_path):
    """Python would run the handler right after the call that makes a step, before anyone has counted it."""
    trainer, steps = make(64), []

    def save(number, frame):
        trainer.save(tmp_path / "run")
        saved = rc.Trainer.resume(tmp_path / "run")
        assert saved.epoch * PER_EPOCH + saved.position.batch == saved.steps
        steps.append(saved.steps)
        if len(steps) == 8:
            trainer.stop()
        signal.setitimer(signal.ITIMER_REAL, 0.005)

    before = signal.signal(signal.SIGALRM, save)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        trainer.fit(X, Y, epochs=10**6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        after = signal.signal(signal.SIGALRM, before)
    assert after is save
    assert len(set(steps)) > 3


@posix
def test_a_handler_may_save_during_a_step_of_ones_own(tmp_path):
    trainer, calls = make(64), []

    def save(number, frame):
        calls.append(trainer.steps)
        trainer.save(tmp_path / "run")
        signal.setitimer(signal.ITIMER_REAL, 0.005)

    before = signal.signal(signal.SIGALRM, save)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        while len(calls) < 5:
            trainer.step(X, Y)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rc.Trainer.resume(tmp_path / "run").steps == calls[-1]


@posix
def test_a_handler_that_raises_comes_between_two_steps():
    class Timeout(Exception):
        pass

    def raising(number, frame):
        raise Timeout

    trainer, whole = make(64), make(64)
    whole.fit(X, Y, epochs=10)
    before = signal.signal(signal.SIGALRM, raising)
    try:
        for attempt in range(10):
            signal.setitimer(signal.ITIMER_REAL, 0.003 + 0.001 * attempt)
            with pytest.raises(Timeout):
                trainer.fit(X, Y, epochs=10**6)
            at = trainer.position
            assert at.epoch * PER_EPOCH + at.batch == trainer.steps
    finally:
        signal.signal(signal.SIGALRM, before)


def test_evaluating_beside_a_fit_sees_one_steps_weights():
    trainer, found = make(), []
    with Running(trainer):
        snapshot = trainer.net.copy()
        batches = [(X[:100], Y[:100]), (X[100:], Y[100:])]
        found.append(trainer.evaluate(X, Y))
        found.append(trainer.evaluate(iter(batches)))
    expected = rc.Trainer(snapshot).evaluate(X, Y)
    assert all(one == pytest.approx(expected) for one in found)


def test_stop_from_another_thread():
    trainer = make()
    with Running(trainer, epochs=10**6):
        trainer.stop()
    assert trainer.steps == 3


def status_of_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except rc.BusyError:
            os._exit(3)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def child_of_a_threaded_parent_trains(folder):
    """The other thread stands between two steps, so that the child's trainer is whole and nobody's."""
    trainer = make()

    def train():
        trainer.save(folder / "run")
        trainer.step(X, Y)
        trainer.restart_epoch()
        trainer.fit(X, Y, epochs=2)

    with Running(trainer):
        assert status_of_child(train) == 0
    assert trainer.epoch == 2


def child_forked_at_any_moment_saves_or_is_told(folder):
    trainer = make(128)
    thread = threading.Thread(target=trainer.fit, args=(X, Y, 10**6))
    thread.start()
    try:
        found = {status_of_child(lambda: trainer.save(folder / "run")) for _ in range(20)}
    finally:
        trainer.stop()
        thread.join()
    assert found <= {0, 3}, found


def child_forked_in_a_callback_goes_on(folder):
    """The child returns into the fit that it was forked in, and finishes it as its parent does."""
    children = []

    def fork(trainer):
        children.append(os.fork())

    trainer = make()
    trainer.fit(X, Y, callbacks=[AtStep(5, fork)])
    trainer.save(folder / str(children[0] == 0))
    if children[0] == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert (folder / "True").read_bytes() == (folder / "False").read_bytes()


@posix
@pytest.mark.parametrize(
    "case",
    [
        child_of_a_threaded_parent_trains,
        child_forked_at_any_moment_saves_or_is_told,
        child_forked_in_a_callback_goes_on,
    ],
)
def test_forks(case, tmp_path):
    """In a process of their own: frameworks that other tests have imported forbid a fork."""
    here = str(Path(__file__).parent)
    code = f"import sys, pathlib; sys.path.insert(0, {here!r}); import test_turns as t; t.{case.__name__}(pathlib.Path("
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}{str(tmp_path)!r}))"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
