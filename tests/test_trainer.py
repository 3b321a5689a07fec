"""fit, step and evaluate do what their docstrings say, and can be stopped and continued anywhere without a trace."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import resnetcore as rc
from resnetcore.data import spans
from resnetcore.position import Position


def problem(rows=203, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 6)).astype(dtype)
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def make(optimizer=None, net=None, **settings):
    net = rc.models.resnet(6, 2, 16, 6, norm="batch", dropout=0.1, seed=1) if net is None else net
    settings = {"batch_size": 20, "seed": 4, "schedule": rc.schedules.Cosine(5000), **settings}
    return rc.Trainer(net, optimizer=optimizer or rc.AdamW(lr=0.01), **settings)


def everything(trainer):
    state = trainer.state()
    return {**trainer.net.parameters(), **trainer.net.buffers(), **state.pop("optimizer"), "rest": repr(state)}


def assert_same(one, other):
    one, other = everything(one), everything(other)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def test_fit_learns():
    X, y = problem(600)
    trainer = make()
    history = trainer.fit(X, y, epochs=40, validation=problem(200, seed=1))
    assert history is trainer.history
    assert len(history["loss"]) == 40
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.85
    assert trainer.epoch == 40
    assert trainer.steps == 40 * 30


def test_epochs_are_the_total():
    X, y = problem()
    once, twice = make(), make()
    once.fit(X, y, epochs=4)
    twice.fit(X, y, epochs=1)
    twice.fit(X, y, epochs=4)
    assert_same(once, twice)
    twice.fit(X, y, epochs=3)
    assert_same(once, twice)


def test_step_gives_the_loss_of_before_the_update():
    X, y = problem()
    net = rc.models.resnet(6, 2, 16, 6, seed=1)
    trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.1))
    before = trainer.evaluate(X, y)["loss"]
    assert trainer.step(X, y) == pytest.approx(before, rel=1e-5)
    assert trainer.evaluate(X, y)["loss"] < before
    assert trainer.steps == 1


def test_step_is_plain_gradient_descent():
    X, y = problem(dtype=np.float64)
    net = rc.models.resnet(6, 2, 16, 6, seed=1, dtype="float64")
    before = net.parameters()
    gradients = net.gradients(X, y)[1]
    rc.Trainer(net, optimizer=rc.SGD(lr=0.25)).step(X, y)
    for name, value in net.parameters().items():
        np.testing.assert_allclose(value, before[name] - 0.25 * gradients[name], rtol=1e-12, atol=1e-15)


def test_step_takes_lists_and_other_dtypes():
    X, y = problem(20)
    one, other = make(schedule=None), make(schedule=None)
    one.step(X, y)
    other.step(X.astype(np.float64).tolist(), y.astype(np.uint8))
    assert_same(one, other)


def test_batches_partition_the_rows():
    for rows in range(1, 60):
        for size in range(1, 9):
            cut = spans(rows, size)
            assert [begin for begin, _ in cut] == [0, *(end for _, end in cut[:-1])]
            assert cut[-1][1] == rows
            sizes = [end - begin for begin, end in cut]
            assert all(s == size for s in sizes[:-1])
            assert 1 <= sizes[-1] <= size + 1
            assert size == 1 or rows == 1 or sizes[-1] > 1


def test_a_left_over_row_joins_the_batch_before_it():
    X, y = problem(41)
    trainer = make()
    trainer.fit(X, y, epochs=1)
    assert trainer.steps == 2


def test_a_left_over_smaller_than_the_micro_batches_joins_too():
    X, y = problem(45)
    trainer = make(accumulate=4)
    trainer.fit(X, y, epochs=1)
    assert trainer.steps == 2


@pytest.mark.parametrize("option", [{}, {"dropout": 0.25}, {"branch_dropout": 0.25}], ids=str)
def test_accumulation_does_not_change_the_update(option):
    """A row has the mask of its place in the batch, whichever micro-batch it comes in."""
    X, y = problem(40, np.float64)
    layers = [rc.Layer(16, **option), rc.Layer(16, skips={2: "learned"}, **option), rc.Layer(3, activation=None)]
    nets = [rc.Network(6, layers, seed=1, dtype="float64") for _ in range(2)]
    for net, parts in zip(nets, (1, 4), strict=True):
        rc.Trainer(net, optimizer=rc.SGD(lr=0.1), batch_size=40, accumulate=parts).step(X, y)
    for name, value in nets[0].parameters().items():
        np.testing.assert_allclose(value, nets[1].parameters()[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_clipping_by_the_norm_of_every_gradient(norm, accumulate):
    X, y = problem(40, np.float64)
    net = rc.models.resnet(6, 2, 16, 6, seed=1, norm=norm, dtype="float64")
    before = net.parameters()
    trainer = rc.Trainer(net, optimizer=rc.SGD(lr=1.0, momentum=0.0), clip_norm=1e-3, accumulate=accumulate)
    trainer.step(X, y)
    moved = np.sqrt(sum(np.sum(np.square(net.parameters()[name] - before[name])) for name in before))
    size = trainer.last_gradient_norm
    assert moved == pytest.approx(1e-3 * size / (size + 1e-6), rel=1e-9)  # PyTorch's clip_grad_norm_
    if accumulate == 1:  # batch statistics are those of the micro-batch
        _, gradients, _ = rc.models.resnet(6, 2, 16, 6, seed=1, norm=norm, dtype="float64").gradients(X, y)
        norms = [np.linalg.norm(gradient) for gradient in gradients.values()]
        assert size == pytest.approx(np.linalg.norm(norms), rel=1e-9)


def test_weights_of_classes_and_rows():
    """A class of weight 2 counts as its rows given twice; a row of weight 0 as one left out."""
    X, y = problem(30, np.float64)
    twice = np.concatenate([np.arange(30), np.flatnonzero(y == 1)])
    net = rc.models.resnet(6, 2, 16, 6, seed=1, dtype="float64")

    def loss_and_step(X, y, weight=None, **settings):
        own = net.copy()
        trainer = rc.Trainer(own, optimizer=rc.SGD(lr=0.1), **settings)
        value = trainer.evaluate(X, y, weight)["loss"]
        trainer.step(X, y, weight)
        return value, own.parameters()

    expected, parameters = loss_and_step(X[twice], y[twice])
    for got, values in (
        loss_and_step(X, y, class_weight=[1, 2]),
        loss_and_step(X, y, class_weight={1: 2.0}),
        loss_and_step(X, y, np.where(y == 1, 2.0, 1.0)),
    ):
        assert got == pytest.approx(expected)
        for name in values:
            np.testing.assert_allclose(values[name], parameters[name], rtol=1e-9, atol=1e-12)
    got, _ = loss_and_step(X, y, np.where(np.arange(30) < 10, 1.0, 0.0))
    assert got == pytest.approx(loss_and_step(X[:10], y[:10])[0])


@pytest.mark.parametrize("given", [np.array([1.0, 3.0]), {0: 1.0, 1: 3.0}], ids=["array", "dict"])
def test_class_weights_are_copied(given):
    """What is done to them later changes neither the training nor its validation, nor its file."""
    X, y = problem(40)
    trainers = [make(class_weight=given), make(class_weight=[1.0, 3.0])]
    given[0] = given[1] = -1.0
    first, second = (t.fit(X, y, epochs=2, validation=(X, y)) for t in trainers)
    assert first.to_dict() == second.to_dict()
    assert trainers[0].config() == trainers[1].config()


def test_evaluation_does_not_depend_on_how_it_is_cut(monkeypatch):
    import resnetcore.network as network

    X, y = problem(50)
    weight = np.linspace(0.1, 1, 50)
    trainer = make(class_weight=[1, 3], label_smoothing=0.1)
    whole = trainer.evaluate(X, y, weight)
    monkeypatch.setattr(network, "_CHUNK_BYTES", 7 * 6 * 4)
    assert trainer.evaluate(X, y, weight) == pytest.approx(whole, rel=1e-6)
    assert trainer.evaluate([(X[:30], y[:30], weight[:30]), (X[30:], y[30:], weight[30:])]) == pytest.approx(whole)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_regression(loss):
    X, _ = problem(300)
    y = X[:, 0] - 0.5 * X[:, 1]
    trainer = rc.Trainer(rc.models.resnet(6, 1, 16, 6), loss=loss, optimizer=rc.AdamW(lr=0.01), batch_size=32)
    trainer.fit(X, y, epochs=20)
    found = trainer.evaluate(X, y)
    residual = trainer.net.predict(X)[:, 0] - y
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(residual))), rel=1e-4)
    assert found["rmse"] < 0.3 * np.std(y)


def test_binary_classification():
    X, y = problem(300)
    trainer = rc.Trainer(rc.models.resnet(6, 1, 16, 6), loss="binary_cross_entropy", optimizer=rc.Adam(lr=0.01))
    trainer.fit(X, y.astype(bool), epochs=30)
    p = trainer.net.predict_proba(X)
    assert p.shape == (300, 1)
    assert trainer.evaluate(X, y)["accuracy"] == pytest.approx(np.mean((p[:, 0] > 0.5) == y))
    assert trainer.evaluate(X, y)["accuracy"] > 0.8


def test_probabilities_as_targets():
    X, y = problem(40)
    trainer = make(schedule=None)
    assert trainer.evaluate(X, np.eye(2)[y]) == pytest.approx(trainer.evaluate(X, y), rel=1e-6)


@pytest.mark.parametrize(
    "optimizer", [rc.SGD(lr=0.05), rc.SGD(lr=0.05, momentum=0.9, nesterov=True), rc.Adam(), rc.AdamW()]
)
@pytest.mark.parametrize("stop_at", [1, 10, 11, 12, 21, 22])
def test_interrupted_anywhere_equals_uninterrupted(optimizer, stop_at, tmp_path):
    """11 batches an epoch: stops in an epoch, at its last step, and between epochs."""
    X, y = problem(211)
    data = {"epochs": 3, "validation": problem(30, seed=1)}
    whole = make(optimizer)
    whole.fit(X, y, **data)

    class Stop(rc.Callback):
        def on_step_end(self, trainer, loss):
            if trainer.steps == stop_at:
                raise KeyboardInterrupt

    in_memory = make(optimizer)
    with pytest.raises(KeyboardInterrupt):
        in_memory.fit(X, y, callbacks=[Stop()], **data)
    in_memory.save(tmp_path / "run.safetensors")
    assert in_memory.steps == stop_at
    in_memory.fit(X, y, **data)
    assert_same(whole, in_memory)
    from_file = rc.Trainer.resume(tmp_path / "run.safetensors")
    from_file.fit(X, y, **data)
    assert_same(whole, from_file)


def test_state_round_trip():
    X, y = problem()
    trainer = make()
    trainer.fit(X, y, epochs=2)
    other = rc.Trainer.from_config(trainer.net.copy(), trainer.config())
    other.set_state(trainer.state())
    assert_same(trainer, other)
    assert other.config() == trainer.config()
    trainer.step(X, y)
    other.step(X, y)
    assert_same(trainer, other)


def test_ctrl_c_stops_between_two_steps():
    X, y = problem()
    trainer, whole = make(), make()
    whole.fit(X, y, epochs=3)

    class PressCtrlC(rc.Callback):
        def on_step_end(self, trainer, loss):
            if trainer.steps == 5:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, y, epochs=3, callbacks=[PressCtrlC()])
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer.steps == 5
    trainer.fit(X, y, epochs=3)
    assert_same(whole, trainer)


def test_ctrl_c_while_validating():
    X, y = problem()
    trainer, whole = make(), make()

    class Rows:
        def __init__(self):
            self.press = True

        def __iter__(self):
            if self.press:
                os.kill(os.getpid(), signal.SIGINT)
            yield problem(10)

    rows = Rows()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, y, epochs=2, validation=rows)
    assert (trainer.epoch, trainer.position.rows, trainer.history.epochs) == (0, 203, 0)
    rows.press = False
    trainer.fit(X, y, epochs=2, validation=rows)
    whole.fit(X, y, epochs=2, validation=rows)
    assert_same(whole, trainer)


@pytest.mark.alone
def test_ctrl_c_while_a_batch_is_made():
    X, y = problem()
    trainer, whole = make(), make()

    class Batches:
        stuck = True

        def __iter__(self):
            for begin in range(0, 200, 20):
                if begin == 60 and self.stuck:
                    threading.Timer(0.1, press).start()
                    time.sleep(5.0)
                yield X[begin : begin + 20], y[begin : begin + 20]

    def press():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    batches, sent = Batches(), []
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches, epochs=2)
    assert time.monotonic() - sent[0] < 0.2
    assert (trainer.steps, trainer.position.batch) == (3, 3)
    batches.stuck = False
    trainer.fit(batches, epochs=2)
    whole.fit(batches, epochs=2)
    assert_same(whole, trainer)


def test_a_handler_of_the_users_own_is_asked():
    X, y = problem()
    calls = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:

        class PressCtrlC(rc.Callback):
            def on_step_end(self, trainer, loss):
                if trainer.steps == 2:
                    os.kill(os.getpid(), signal.SIGINT)

        trainer = make()
        trainer.fit(X, y, epochs=1, callbacks=[PressCtrlC()])
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [signal.SIGINT]
    assert trainer.epoch == 1


def test_fit_outside_the_main_thread():
    X, y = problem()
    trainer, whole = make(), make()
    whole.fit(X, y, epochs=2)
    thread = threading.Thread(target=lambda: trainer.fit(X, y, epochs=2))
    thread.start()
    thread.join()
    assert_same(whole, trainer)


def test_ctrl_c_from_outside_stops_soon():
    code = """
import numpy as np, resnetcore as rc, sys, time
X = np.random.default_rng(0).standard_normal((4096, 32)).astype(np.float32)
trainer = rc.Trainer(rc.models.resnet(32, 4, 64, 20), optimizer=rc.SGD(lr=1e-3))
class Ready(rc.Callback):
    def on_epoch_end(self, trainer, metrics):
        print("ready", flush=True)
try:
    trainer.fit(X, np.zeros(4096, int), epochs=10**6, callbacks=[Ready()])
except KeyboardInterrupt:
    trainer.step(X[:64], np.zeros(64, int))
    print("stopped", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[0].split()
    assert rest[-1] == "stopped"
    assert process.returncode == 0


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights():
    X, y = problem()
    trainer = make(schedule=None)
    trainer.fit(X, y, epochs=1)
    before = everything(trainer)
    bad = X.copy()
    bad[7, 2] = np.inf
    with pytest.raises(FloatingPointError, match="step"):
        trainer.step(bad, y)
    after = everything(trainer)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    trainer.fit(X, y, epochs=2)
    assert trainer.epoch == 2


def test_a_loss_that_blows_up_during_fit():
    X, y = problem()
    trainer = rc.Trainer(rc.models.plain(6, 2, 16, 6), optimizer=rc.SGD(lr=1e25), batch_size=20)
    with pytest.raises(FloatingPointError, match=r"step.*layer"):
        trainer.fit(X, y, epochs=5)
    assert all(np.isfinite(value).all() for value in trainer.net.parameters().values())


def test_other_data_inside_an_epoch_is_refused():
    X, y = problem()

    class Stop(rc.Callback):
        def on_step_end(self, trainer, loss):
            if trainer.steps == 3:
                trainer.stop()

    trainer = make(schedule=None)
    trainer.fit(X, y, epochs=1, callbacks=[Stop()])
    assert trainer.position.rows == 60
    with pytest.raises(ValueError, match="restart_epoch"):
        trainer.fit(X[:50], y[:50], epochs=1)
    trainer.restart_epoch()
    trainer.fit(X[:50], y[:50], epochs=1)
    assert (trainer.epoch, trainer.steps) == (1, 6)


def in_an_epoch(X, y=None, batches=3):
    class Stop(rc.Callback):
        def on_step_end(self, trainer, loss):
            if trainer.steps == batches:
                trainer.stop()

    trainer = make(schedule=None)
    trainer.fit(X, y, epochs=2, callbacks=[Stop()])
    return trainer


def batches_of(X, y):
    return [(X[i : i + 20], y[i : i + 20]) for i in range(0, len(X), 20)]


@pytest.mark.parametrize("resumed", [False, True])
def test_an_epoch_is_of_one_data_set(tmp_path, resumed):
    """Larger arrays begin with as many full batches, and an iterable skips as many: each would look like a continuation."""
    arrays, more = problem(100), problem(4000)
    for first, others in (
        (arrays, [more, (batches_of(*arrays),), (iter(batches_of(*arrays)),)]),
        ((batches_of(*arrays),), [arrays, (batches_of(*more),)]),
    ):
        trainer = in_an_epoch(*first)
        if resumed:
            trainer.save(tmp_path / "run")
            trainer = rc.Trainer.resume(tmp_path / "run")
        before = everything(trainer)
        for other in others:
            with pytest.raises(ValueError, match=r"epoch of (100 rows|5 batches).*restart_epoch"):
                trainer.fit(*other, epochs=1)
        after = everything(trainer)
        assert all(np.array_equal(before[name], after[name]) for name in before)
        trainer.fit(*first, epochs=1)
        assert (trainer.steps, trainer.position) == (5, Position(epoch=1))


def test_an_epoch_that_only_lacks_its_validation_is_of_one_data_set():
    X, y = problem(100)
    trainer = in_an_epoch(X, y, batches=5)
    with pytest.raises(ValueError, match="restart_epoch"):
        trainer.fit(*problem(4000), epochs=1)
    trainer.fit(X, y, epochs=1)
    assert trainer.steps == 5


def test_an_iterable_of_unknown_length_is_continued():
    X, y = problem(100)
    trainer = in_an_epoch(batches_of(X, y))
    trainer.fit(iter(batches_of(X, y)), epochs=1)
    assert (trainer.steps, trainer.epoch) == (5, 1)


def test_a_state_without_the_kind_of_its_data_is_continued():
    X, y = problem(100)
    trainer = in_an_epoch(X, y)
    state = trainer.state()
    del state["position"]["kind"], state["position"]["total"]
    trainer.set_state(state)
    with pytest.raises(ValueError, match="restart_epoch"):
        trainer.fit(X[:50], y[:50], epochs=1)
    trainer.fit(X, y, epochs=1)
    assert (trainer.steps, trainer.epoch) == (5, 1)


def test_history_is_a_mapping_and_a_table():
    X, y = problem()
    trainer = make()
    trainer.fit(X, y, epochs=1)
    trainer.fit(X, y, epochs=2, validation=(X, y))
    history = trainer.history
    assert list(history) == ["loss", "lr", "val_loss", "val_accuracy"]
    assert np.isnan(history["val_loss"][0])
    assert history.to_dict()["val_loss"][0] is None
    assert repr(rc.History(history.to_dict())) == repr(history)
    assert len(repr(history).splitlines()) == 4
    with pytest.raises(KeyError, match="there are loss"):
        history["accuracy"]


def test_optimizers_by_name_and_position():
    net = rc.models.plain(6, 2, 8, 3)
    assert rc.Trainer(net, optimizer="adamw").optimizer == rc.AdamW()
    assert rc.SGD(0.5).lr == 0.5
    assert rc.Trainer(net).optimizer == rc.SGD(lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="SGD, Adam, AdamW"):
        rc.Trainer(net, optimizer="adagrad")


def test_decay_of_weights_only():
    X, y = problem(20, np.float64)
    nets = [rc.models.plain(6, 2, 8, 3, dtype="float64") for _ in range(2)]
    for net, decay in zip(nets, ("all", "weights"), strict=True):
        net.set_parameters({"1.bias": np.ones(8)})
        rc.Trainer(net, optimizer=rc.SGD(lr=0.1, weight_decay=0.5, decay=decay)).step(X, y)
    everywhere, weights_only = (net.parameters() for net in nets)
    np.testing.assert_allclose(weights_only["1.bias"] - everywhere["1.bias"], 0.05, rtol=1e-9)
    np.testing.assert_allclose(weights_only["1.weight"], everywhere["1.weight"])


def test_one_fit_at_a_time():
    X, y = problem(64)
    trainer = make(batch_size=4)
    inside, go_on = threading.Event(), threading.Event()

    class Wait(rc.callbacks.Callback):
        def on_step_end(self, trainer, loss):
            inside.set()
            go_on.wait(10)

    other = threading.Thread(target=lambda: trainer.fit(X, y, epochs=1, callbacks=Wait()))
    other.start()
    assert inside.wait(10)
    with pytest.raises(RuntimeError, match="another thread"):
        trainer.fit(X, y, epochs=2)
    go_on.set()
    other.join()
    assert (trainer.epoch, trainer.steps, trainer.history.epochs) == (1, 16, 1)
    trainer.fit(X, y, epochs=2)

    class Nested(rc.callbacks.Callback):
        def on_step_end(self, trainer, loss):
            trainer.fit(X, y, epochs=9)

    with pytest.raises(RuntimeError, match="a callback"):
        trainer.fit(X, y, epochs=3, callbacks=Nested())


def test_saved_by_another_thread_is_whole(tmp_path):
    X, y = problem(64)
    trainer, torn = make(batch_size=4), []
    running = threading.Thread(target=lambda: trainer.fit(X, y, epochs=30))
    running.start()
    while running.is_alive():
        trainer.save(tmp_path / "now.safetensors")
        resumed = rc.Trainer.resume(tmp_path / "now.safetensors")
        if resumed.steps != 16 * resumed.epoch + resumed.position.batch:
            torn.append(resumed.steps)
    running.join()
    assert not torn


def test_a_slow_source_can_be_interrupted():
    class Slow:
        def __iter__(self):
            yield problem(8)
            time.sleep(30)

    trainer = make()
    began = time.monotonic()
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Slow(), epochs=1)
    assert time.monotonic() - began < 5
    assert (trainer.steps, trainer.position.batch) == (1, 1)


@pytest.mark.parametrize("bad", [rc.schedules.OneCycle(final=0.0), rc.schedules.OneCycle(start=0.0)], ids=repr)
def test_a_rate_of_zero_is_found_before_the_first_step(bad):
    X, y = problem(40)
    trainer = make(schedule=bad)
    with pytest.raises(ValueError, match="learning rate of 0"):
        trainer.fit(X, y, epochs=2)
    assert trainer.steps == 0 and trainer.schedule == bad


def test_a_length_is_not_filled_in_by_a_fit_that_failed():
    X, y = problem(40)
    trainer = make(schedule=rc.schedules.Cosine())
    bad = X.copy()
    bad[:] = np.nan
    with pytest.raises(FloatingPointError):
        trainer.fit(bad, y, epochs=2)
    assert trainer.schedule.steps is None


def test_callbacks_at_both_ends():
    X, y = problem(40)
    closed = []

    class Closing(rc.callbacks.Callback):
        def __init__(self, fails):
            self.fails = fails

        def close(self):
            closed.append(self)
            if self.fails:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make().fit(X, y, epochs=1, callbacks=[Closing(True), Closing(False)])
    assert len(closed) == 2

    class StopAtOnce(rc.callbacks.Callback):
        def on_fit_begin(self, trainer, plan):
            trainer.stop()

    trainer = make()
    trainer.fit(X, y, epochs=1, callbacks=StopAtOnce())
    assert trainer.steps == 0
    trainer.fit(X, y, epochs=1, callbacks=None)
    with pytest.raises(rc.DTypeError, match="progress"):
        trainer.fit(X, y, epochs=2, progress="no")


def test_a_history_is_read_only():
    X, y = problem(40)
    trainer = make()
    trainer.fit(X, y, epochs=1)["loss"].append(99.0)
    assert len(trainer.history["loss"]) == 1


@pytest.mark.parametrize(
    "loss, weights",
    [("cross_entropy", "samples"), ("cross_entropy", "classes"), ("cross_entropy", "both"), ("mse", "samples")],
)
def test_the_epochs_loss_is_weighed_as_the_validations(loss, weights):
    """One epoch at a rate too small to change anything: both are the loss of the same network on the same rows."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((90, 6)).astype(np.float32)
    labels = np.sort(rng.integers(0, 3, 90))  # batches of unequal class weights
    y = labels if loss == "cross_entropy" else rng.standard_normal((90, 3)).astype(np.float32)
    sample = np.linspace(0, 3, 90).astype(np.float32) if weights != "classes" else None
    classes = [0.1, 1.0, 5.0] if weights != "samples" else None
    net = rc.models.plain(6, 3, 16, 3, seed=2)
    trainer = rc.Trainer(net, loss=loss, optimizer=rc.SGD(lr=1e-12), batch_size=20, class_weight=classes)
    validation = (X, y) if sample is None else (X, y, sample)
    history = trainer.fit(X, y, epochs=1, validation=validation, sample_weight=sample, progress=False)
    assert history["loss"][0] == pytest.approx(history["val_loss"][0], rel=1e-5)
