"""`fit` on a GPU does not wait for a step before it asks for the next one. Nobody can tell: losses, weights, errors, files and
what callbacks see are those of a fit that waits for every step."""

import signal
import threading

import numpy as np
import pytest

import resnetcore as rc
from gpu_memory import OnGpu
from resnetcore import _core
from test_trainer import assert_same

pytestmark = pytest.mark.gpu

ROWS, BATCH = 70, 16  # the last of five batches is smaller


def problem(labels=True):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 6)).astype("float32")
    y = rng.integers(0, 3, ROWS) if labels else rng.standard_normal((ROWS, 3)).astype("float32")
    return X, y


def make(device, norm="batch", **settings):
    layers = [
        rc.Layer(9, norm=norm),
        rc.Layer(9, skips={2: "learned"}, dropout=0.25),
        rc.Layer(9, skips={2: "identity"}),
        rc.Layer(3, activation=None),
    ]
    settings = {"optimizer": "adam", "schedule": rc.schedules.Cosine(40), "batch_size": BATCH, "seed": 2, **settings}
    return rc.Trainer(rc.Network(6, layers, seed=3, device=device), **settings)


def batches_of(X, y):
    return [(X[i : i + BATCH], y[i : i + BATCH]) for i in range(0, ROWS, BATCH)]


class Losses(rc.Callback):
    """Of every step. One that waits makes the whole fit wait."""

    def __init__(self, waits):
        self.waits, self.found, self.steps = waits, [], []

    def on_step_end(self, trainer, loss):
        self.found.append(loss)
        self.steps.append(trainer.steps)

    def needs_step(self, step):
        return self.waits


class Watched:
    """Batches, and what is called before the one of that number is given, in the first epoch."""

    def __init__(self, batches, number, call):
        self._batches, self._number, self._call = batches, number, call

    def __iter__(self):
        for number, batch in enumerate(self._batches):
            if number == self._number and self._call:
                call, self._call = self._call, None
                call()
            yield batch


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 1),
        ({"clip_norm": 0.1}, 1),
        ({"accumulate": 2}, 1),
        ({"optimizer": rc.SGD(lr=1e-18, momentum=0.5), "norm": None, "loss": "mse"}, 1e8),
    ],
)
def test_the_same_bits_as_step_by_step(device, settings, scale):
    """The last one's steps are all large enough that they might overflow, and so are done twice."""
    X, y = problem(labels=scale == 1)
    X *= np.float32(scale)
    ahead, waiting = make(device, **settings), make(device, **settings)
    late, prompt = Losses(False), Losses(True)
    weight = np.linspace(0.5, 2, ROWS)
    history = ahead.fit(X, y, epochs=3, sample_weight=weight, callbacks=late, progress=False)
    assert (
        history.to_dict()
        == waiting.fit(X, y, epochs=3, sample_weight=weight, callbacks=prompt, progress=False).to_dict()
    )
    assert late.found == prompt.found and len(late.found) == 15
    assert prompt.steps == list(range(1, 16))
    assert_same(ahead, waiting)


def test_one_step_is_in_flight_and_no_more(device):
    X, y = problem()
    trainer = make(device)
    seen = []
    for waits in (False, True):
        source = Watched(batches_of(X, y), 3, lambda: seen.append((len(trainer._in_flight), trainer.steps)))
        trainer.fit(source, epochs=trainer.epoch + 1, callbacks=Losses(waits), progress=False)
    assert seen == [(1, 2), (0, 8)]


@pytest.mark.parametrize("bad", [0, 2, 3, 4])
def test_a_loss_that_is_not_finite_names_its_step(device, bad):
    X, y = problem()
    batches = batches_of(X, y)
    good = make(device)
    if bad:
        good.fit(batches[:bad], epochs=1, progress=False)
    broken = [(x.copy(), y) for x, y in batches]
    for x, _ in broken[bad:]:
        x[3, 1] = np.nan
    trainer = make(device)
    for _ in range(2):  # continued, it comes to the same batch
        with pytest.raises(FloatingPointError, match=rf"nan at step {bad + 1}; .* is layer 0, the input"):
            trainer.fit(broken, epochs=1, progress=False)
        assert trainer.steps == trainer.position.batch == bad and not trainer._in_flight
    for name, array in trainer.net._arrays().items():
        assert np.array_equal(array, good.net._arrays()[name]), name
    trainer.fit(batches, epochs=1, progress=False)  # and goes on with good ones
    assert trainer.steps == 5
    uninterrupted = make(device)
    uninterrupted.fit(batches, epochs=1, progress=False)
    assert_same(trainer, uninterrupted)


def test_an_update_that_overflows_is_not_made(device):
    X, y = problem(labels=False)
    batches = batches_of(X, y)
    batches[2] = (1e36 * batches[2][0], batches[2][1])
    trainer, good = (make(device, norm=None, loss="mse", optimizer=rc.SGD(lr=0.1, momentum=0.5)) for _ in range(2))
    good.fit(batches[:2], epochs=1, progress=False)
    with pytest.raises(FloatingPointError, match="at step 3"):
        trainer.fit(batches, epochs=1, progress=False)
    for name, array in trainer.net._arrays().items():
        assert np.array_equal(array, good.net._arrays()[name]), name


def test_an_error_of_a_step_comes_before_those_of_the_next_batch(device):
    X, y = problem()
    batches = batches_of(X, y)
    batches[1] = (np.full_like(batches[1][0], np.nan), batches[1][1])

    def fails():
        raise LookupError("the batch cannot be made")

    trainer = make(device)
    with pytest.raises(FloatingPointError, match="step 2"):
        trainer.fit(Watched(batches, 2, fails), epochs=1, progress=False)
    trainer = make(device)
    with pytest.raises(LookupError):
        trainer.fit(Watched(batches_of(X, y), 2, fails), epochs=1, progress=False)
    assert trainer.steps == trainer.position.batch == 2


def test_ctrl_c_leaves_whole_steps(device):
    X, y = problem()
    trainer, uninterrupted = make(device), make(device)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Watched(batches_of(X, y), 3, lambda: signal.raise_signal(signal.SIGINT)), epochs=2, progress=False)
    assert trainer.steps == trainer.position.batch == 3 and not trainer._in_flight
    trainer.fit(batches_of(X, y), epochs=2, progress=False)
    uninterrupted.fit(batches_of(X, y), epochs=2, progress=False)
    assert_same(trainer, uninterrupted)


def test_checkpoints_are_of_their_step(device, tmp_path):
    X, y = problem()
    for name, others in (("late", []), ("prompt", [Losses(True)])):
        (tmp_path / name).mkdir()
        checkpoint = rc.Checkpoint(tmp_path / name / "{step}", every=3)
        make(device).fit(X, y, epochs=2, callbacks=[checkpoint, *others], progress=False)
    files = sorted(path.name for path in (tmp_path / "late").iterdir())
    assert files == ["3", "6", "9"]
    for name in files:
        assert (tmp_path / "late" / name).read_bytes() == (tmp_path / "prompt" / name).read_bytes()


def test_who_looks_at_the_network_or_saves_sees_whole_steps(device, tmp_path):
    """While the third batch is made, the second step is in flight."""
    X, y = problem()
    trainer, waiting = make(device), make(device)
    seen = []
    calls = (
        lambda one: one.net.predict(X),
        lambda one: one.net.parameters()["2.weight"],
        lambda one: one.save(tmp_path / "file"),
    )
    for call in calls:
        for one in (trainer, waiting):
            source = Watched(batches_of(X, y), 2, lambda one=one, call=call: seen.append(call(one)))
            one.fit(source, epochs=one.epoch + 1, callbacks=[Losses(one is waiting)], progress=False)
            if seen[-1] is None:
                seen[-1] = (tmp_path / "file").read_bytes()
        late, prompt = seen[-2:]
        assert np.array_equal(late, prompt)
    assert_same(trainer, waiting)


def test_a_callback_may_stop_it_and_make_steps_of_its_own(device):
    X, y = problem()

    class Meddler(rc.Callback):
        def on_step_end(self, trainer, loss):
            if trainer.position.batch == 2:
                trainer.step(X, y)
            if trainer.position.batch == 4:
                trainer.stop()

        def needs_step(self, step):
            return step in (2, 4, 5)

    trainer = make(device)
    trainer.fit(X, y, epochs=1, callbacks=Meddler(), progress=False)
    assert trainer.position.batch == 4 and trainer.steps == 5


def test_two_trainers_of_one_network_take_turns(device):
    X, y = problem()
    nets = []
    for waits in (False, True):
        first = make(device)
        second = rc.Trainer(first.net, optimizer="sgd", batch_size=BATCH)
        source = Watched(batches_of(X, y), 2, lambda second=second: second.step(X, y))
        first.fit(source, epochs=1, callbacks=Losses(waits), progress=False)
        nets.append(first.net._arrays())
    for name, array in nets[0].items():
        assert np.array_equal(array, nets[1][name]), name


def test_rows_of_a_matrix_on_the_gpu_are_chosen_ahead(device):
    X, y = problem()
    there, here = make(device), make(device)
    losses = Losses(False), Losses(True)
    there.fit(OnGpu(X), OnGpu(y), epochs=2, callbacks=losses[0], progress=False)
    here.fit(X, y, epochs=2, callbacks=losses[1], progress=False)
    assert losses[0].found == losses[1].found
    assert_same(there, here)


def test_a_step_made_within_a_fit_does_not_follow_a_bad_one(device):
    X, y = problem()
    batches = batches_of(X, y)
    batches[1] = (np.full_like(batches[1][0], np.nan), batches[1][1])
    trainer = make(device)
    before = []

    def step():  # asked for while the bad one is in flight
        before.append(trainer.steps)
        trainer.step(*batches[3])

    with pytest.raises(FloatingPointError, match="at step 2"):
        trainer.fit(Watched(batches, 2, step), epochs=1)
    assert before and trainer.steps == 1


@pytest.mark.parametrize("problem_is", ["the iterable", "Ctrl-C", "the labels"])
def test_callbacks_are_told_of_all_steps_before_a_batch_that_is_none(device, problem_is):
    X, y = problem()
    batches = batches_of(X, y)
    error = {"Ctrl-C": KeyboardInterrupt, "the labels": ValueError}.get(problem_is, LookupError)
    if problem_is == "the labels":
        batches[3] = (batches[3][0], batches[3][1] + 3)

    def fails():
        if problem_is != "the labels":
            raise error

    found = []
    for waits in (False, True):
        losses = Losses(waits)
        with pytest.raises(error):
            make(device).fit(Watched(batches, 3, fails), epochs=1, callbacks=losses, progress=False)
        found.append(losses.found)
    assert found[0] == found[1] and len(found[0]) == 3


def test_a_callbacks_error_is_not_replaced_by_that_of_the_next_step(device):
    X, y = problem()
    batches = batches_of(X, y)
    batches[1] = (np.full_like(batches[1][0], np.nan), batches[1][1])

    class Fails(Losses):
        def on_step_end(self, trainer, loss):
            raise LookupError("the callback's")

    trainer = make(device)
    with pytest.raises(LookupError, match="the callback's"):
        trainer.fit(batches, epochs=1, callbacks=Fails(False), progress=False)
    assert trainer.steps == trainer.position.batch == 1 and not trainer._in_flight
    with pytest.raises(FloatingPointError, match="at step 2"):
        trainer.fit(batches, epochs=1, progress=False)


def test_another_threads_look_at_the_network_counts_no_step(device):
    X, y = problem()

    class Looks(Losses):
        def on_step_end(self, trainer, loss):
            thread = threading.Thread(target=trainer.net.predict, args=(X[:2],))
            thread.start()
            thread.join()
            super().on_step_end(trainer, loss)

    trainer, alone, looks = make(device), make(device), Looks(False)
    trainer.fit(X, y, epochs=2, callbacks=looks, progress=False)
    alone.fit(X, y, epochs=2, progress=False)
    assert looks.steps == list(range(1, 11))
    assert_same(trainer, alone)


def test_memory_that_ends_in_the_middle_of_a_fit(device, monkeypatch):
    """The larger batch finds none; what was made before it stays, and the same fit goes on when there is some."""
    if "emulated" not in str(_core.cuda_info()["gpus"]):
        pytest.skip("a GPU's memory does not end by command")
    X, y = problem()
    batches = [*batches_of(X, y)[:3], (np.repeat(X, 8, axis=0), np.repeat(y, 8)), *batches_of(X, y)[:2]]
    trainer, alone, losses = make(device), make(device), Losses(False)

    def ends():
        monkeypatch.setenv("RESNETCORE_EMULATED_MEMORY", "1000")  # less than is in use: for new memory

    with pytest.raises(MemoryError):
        trainer.fit(Watched(batches, 3, ends), epochs=1, callbacks=losses, progress=False)
    assert trainer.steps == trainer.position.batch == len(losses.found) == 3
    monkeypatch.delenv("RESNETCORE_EMULATED_MEMORY")
    trainer.fit(batches, epochs=1, progress=False)
    alone.fit(batches, epochs=1, progress=False)
    assert_same(trainer, alone)


def test_a_batch_too_large_is_forgotten(device, monkeypatch):
    """Smaller ones after it are given the memory that they need, and not that which there was not."""
    if "emulated" not in str(_core.cuda_info()["gpus"]):
        pytest.skip("a GPU's memory does not end by command")
    X, y = problem()
    large, labels = np.zeros((20_000, 6), "float32"), np.zeros(20_000, int)
    layers = [rc.Layer(256, dropout=0.5), rc.Layer(3, activation=None)]
    net, other = (rc.Network(6, layers, seed=3, device=device) for _ in range(2))
    trainer, alone = (rc.Trainer(n, optimizer="adam", seed=2) for n in (net, other))
    monkeypatch.setenv("RESNETCORE_EMULATED_MEMORY", str(8 << 20))
    with pytest.raises(MemoryError):
        net.predict(large)
    np.testing.assert_array_equal(net.predict(X[:8]), other.predict(X[:8]))
    with pytest.raises(MemoryError):
        trainer.step(large, labels)
    assert trainer.step(X[:8], y[:8]) == alone.step(X[:8], y[:8])


def test_two_fits_side_by_side(device):
    X, y = problem()
    pairs = [(make(device), make(device)) for _ in range(2)]
    threads = [
        threading.Thread(target=together.fit, args=(X, y), kwargs={"epochs": 4, "progress": False})
        for together, _ in pairs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for together, alone in pairs:
        alone.fit(X, y, epochs=4, progress=False)
        assert_same(together, alone)
