"""Schedules are pure functions of the step, survive a checkpoint, and equal PyTorch's formulas."""

import json
import math

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import schedules
from resnetcore.schedules import Constant, Cosine, OneCycle, StepDecay, WarmUp

ALL = [Constant(), StepDecay(10, 0.5), Cosine(100, final=0.1, warmup=5), OneCycle(100), WarmUp(7, Cosine(50), 0.1)]


@pytest.mark.parametrize("schedule", ALL)
def test_round_trip(schedule):
    assert schedules.from_dict(schedule.to_dict()) == schedule


@pytest.mark.parametrize("schedule", ALL)
def test_pure_and_within_bounds(schedule):
    rates = [schedule.rate(step, 0.4) for step in range(100)]
    assert rates == [schedule.rate(step, 0.4) for step in range(100)]
    assert all(0 < rate <= 0.4 for rate in rates[:50])


def test_constant():
    assert Constant().rate(10**9, 0.3) == 0.3


def test_step_decay():
    assert [StepDecay(3, 0.5).rate(step, 8.0) for step in range(7)] == [8, 8, 8, 4, 4, 4, 2]


def test_cosine():
    schedule = Cosine(10, final=0.1)
    expected = [0.1 * 2 + (2 - 0.2) * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(11)]
    assert [schedule.rate(step, 2.0) for step in range(11)] == pytest.approx(expected)
    assert schedule.rate(50, 2.0) == pytest.approx(0.2)


def test_cosine_after_a_warm_up():
    schedule = Cosine(12, warmup=4)
    assert [schedule.rate(step, 1.0) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule.rate(8, 1.0) == pytest.approx(0.5)


def test_one_cycle_is_pytorchs():
    schedule = OneCycle(20)
    first, last, peak = 1 / 25, 1 / 25 * 1e-4, 0.3 * 20 - 1

    def cosine(start, end, fraction):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

    for step in range(20):
        up = cosine(first, 1.0, step / peak)
        down = cosine(1.0, last, (step - peak) / (19 - peak))
        assert schedule.rate(step, 3.0) == pytest.approx(3.0 * (up if step <= peak else down))


def test_warm_up_then_another():
    schedule = WarmUp(4, StepDecay(2, 0.1))
    assert [schedule.rate(step, 10.0) for step in range(8)] == pytest.approx([2, 4, 6, 8, 10, 10, 1, 1])


def test_a_length_left_out_is_filled_in_by_fit():
    import numpy as np

    X, y = np.zeros((10, 2), np.float32), np.zeros(10, int)
    trainer = rc.Trainer(rc.models.plain(2, 2, 4, 3), batch_size=4, schedule=WarmUp(2, Cosine()))
    with pytest.raises(ValueError, match="steps is not known"):
        rc.Trainer(trainer.net, schedule=Cosine()).step(X, y)
    trainer.fit(X, y, epochs=3)
    assert trainer.schedule == WarmUp(2, Cosine(7))
    with pytest.raises(ValueError, match="number of batches"):
        rc.Trainer(trainer.net, schedule=Cosine()).fit(((a, b) for a, b in [(X, y)]), epochs=1)


def test_a_schedule_that_ended_says_so():
    import numpy as np

    X, y = np.zeros((10, 2), np.float32), np.zeros(10, int)
    trainer = rc.Trainer(rc.models.plain(2, 2, 4, 3), schedule=Cosine(3))
    for _ in range(3):
        trainer.step(X, y)
    with pytest.raises(ValueError, match=r"trainer\.schedule"):
        trainer.step(X, y)
    trainer.schedule = Constant()
    trainer.step(X, y)


def make_trainer(schedule):
    return rc.Trainer(rc.models.plain(2, 2, 4, 3), batch_size=4, schedule=schedule)


@pytest.mark.parametrize(
    "schedule, step",
    [(OneCycle(start=0.0), 0), (OneCycle(final=0.0), 8), (Cosine(5), 8), (StepDecay(1, 1e-200), 8)],
)
def test_a_schedule_that_comes_to_zero_is_refused_before_the_first_step(schedule, step):
    import numpy as np

    X, y = np.zeros((10, 2), np.float32), np.zeros(10, int)
    trainer, recorded = make_trainer(schedule), []
    seen = type("Seen", (rc.Callback,), {"on_fit_begin": lambda self, *_: recorded.append(1)})
    with pytest.raises(ValueError, match=rf"fit: .*at step {step},.*trainer\.schedule"):
        trainer.fit(X, y, epochs=3, callbacks=[seen()])
    assert (trainer.steps, trainer.schedule, recorded) == (0, schedule, [])


def test_a_fit_without_a_step_leaves_the_schedules_length_open():
    import numpy as np

    X, y = np.zeros((10, 2), np.float32), np.zeros(10, int)
    trainer, bad = make_trainer(Cosine()), X + np.nan
    with pytest.raises(FloatingPointError):
        trainer.fit(bad, y, epochs=3)
    assert (trainer.steps, trainer.schedule) == (0, Cosine())
    trainer.fit(X, y, epochs=5)
    assert trainer.schedule == Cosine(15)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: StepDecay(0), ValueError),
        (lambda: StepDecay(2.5), TypeError),
        (lambda: StepDecay(2, 0.0), ValueError),
        (lambda: StepDecay(2, math.nan), ValueError),
        (lambda: Cosine(0), ValueError),
        (lambda: Cosine(True), TypeError),
        (lambda: Cosine(10, warmup=10), ValueError),
        (lambda: Cosine(10, final=-0.1), ValueError),
        (lambda: OneCycle(10, rise=1.5), ValueError),
        (lambda: OneCycle(10, start="low"), TypeError),
        (lambda: WarmUp(3, "cosine"), TypeError),
        (lambda: schedules.from_dict({"name": "Zigzag"}), ValueError),
        (lambda: schedules.from_dict({"name": "Cosine", "stepz": 3}), ValueError),
        (lambda: schedules.from_dict({"name": "StepDecay"}), ValueError),
        (lambda: schedules.from_dict({"name": ["Cosine"]}), ValueError),
        (lambda: schedules.from_dict({}), ValueError),
        (lambda: schedules.from_dict(None), TypeError),
        (lambda: rc.Trainer(rc.models.plain(2, 2, 4, 3), schedule=0.1), TypeError),
    ],
)
def test_bad_arguments(make, error):
    with pytest.raises(error):
        make()


def test_fractions_of_other_libraries_become_floats():
    schedule = Cosine(10, final=np.float32(0.5))
    assert type(schedule.final) is float and schedules.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    for bad in ("0.5", True, np.array([0.5])):
        with pytest.raises(rc.DTypeError, match="Cosine: final must be a number"):
            Cosine(10, final=bad)


class Mine(rc.Schedule):
    """A user's own, by a function of the step."""

    def __init__(self, function, whole_rate=False):
        name = "rate" if whole_rate else "factor"
        object.__setattr__(self, name, (lambda step, lr: function(step)) if whole_rate else function)


@pytest.mark.parametrize("whole_rate", [False, True])
def test_a_schedule_of_the_users_own(whole_rate):
    """Numbers of any kind are taken; what is none is named, before anything is changed."""
    X, y = np.ones((6, 2)), np.zeros(6, int)

    def fit(function):
        trainer = rc.Trainer(rc.Network(2, [rc.Layer(2)]), optimizer=rc.SGD(lr=1.0), batch_size=2)
        trainer.schedule = Mine(function, whole_rate)
        try:
            return trainer.fit(X, y)["lr"]
        finally:
            assert trainer.steps in (0, 3)

    assert fit(lambda step: np.float32(0.5)) == fit(lambda step: np.array(0.5)) == fit(lambda step: 0.5) == [0.5]
    for bad in (None, "0.5", np.array([0.5])):
        with pytest.raises(rc.DTypeError, match="must be a number, got"):
            fit(lambda step, bad=bad: bad)
    for bad in (10**400, np.float32("nan"), -1.0):
        with pytest.raises(ValueError, match=r"must be finite|must be above 0"):
            fit(lambda step, bad=bad: bad)
