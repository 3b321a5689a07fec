"""Trains a network in place. Between two steps a trainer is whole: it can be saved, stopped and continued there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NoReturn

from . import _core, optimizers, schedules, tuning
from ._errors import DTypeError
from .best import Best, Key
from .checks import as_integer, as_number, check_seed
from .data import as_data, check_batch
from .descriptions import with_just_names, with_names
from .evaluation import evaluate
from .fit_plan import prepare
from .fitting import fit
from .history import History
from .in_flight import StepsInFlight
from .losses import Loss, as_loss
from .network import Network
from .optimizers import SGD, Optimizer, as_optimizer
from .position import Position
from .schedules import Schedule
from .turns import Turns

if TYPE_CHECKING:
    from .callbacks import Callback

_SETTINGS = ("loss", "optimizer", "schedule", "batch_size", "seed", "clip_norm", "accumulate")


class Trainer:
    """Fits a network to data.

    One thread trains at a time: `step` and `save` wait for the end of another thread's step, and while a `fit` runs,
    other threads may save, evaluate, `stop` and set `schedule`, and get a RuntimeError where they would train.

    Args:
        net: trained in place.
        loss: a name or a `Loss`.
        optimizer: `SGD`, `Adam` or `AdamW`, or one's name; None is `SGD(lr=0.1, momentum=0.9)`.
        batch_size: rows in a step; the last batch of an epoch may be smaller, or one row larger.
        seed: of shuffles and dropout.
        schedule: of the learning rate, from `resnetcore.schedules`; None keeps it constant.
        label_smoothing, class_weight: of the loss, as in `Loss`.
        clip_norm: largest norm of all gradients together; larger ones are scaled down to it.
        accumulate: micro-batches that a batch is cut into, for less memory.

    Example:
        >>> trainer = Trainer(net, optimizer=AdamW(lr=1e-3), schedule=schedules.Cosine(), batch_size=256)
        >>> history = trainer.fit(X, y, epochs=20, validation=(Xv, yv))

    Raises:
        ValueError: a number out of its range, or an unknown name.
        DTypeError: an argument of the wrong type.
    """

    def __init__(
        self,
        net: Network,
        loss: str | Loss = "cross_entropy",
        optimizer: Optimizer | str | None = None,
        batch_size: int = 128,
        seed: int = 0,
        schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        class_weight: Any = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
    ) -> None:
        if not isinstance(net, Network):
            raise DTypeError(f"Trainer: net must be a Network, got {type(net).__name__}")
        given: dict[str, Any] = {"label_smoothing": label_smoothing} if label_smoothing else {}
        if class_weight is not None:
            given["class_weight"] = class_weight
        self._loss = replace(as_loss(loss), **given)
        self._optimizer = SGD(lr=0.1, momentum=0.9) if optimizer is None else as_optimizer(optimizer)
        self._schedule = schedules.Constant() if schedule is None else schedule
        if not isinstance(self._schedule, Schedule):
            raise DTypeError(f"Trainer: schedule must be one of resnetcore.schedules, got {schedule!r}")
        self._batch_size = as_integer("Trainer: batch_size", batch_size, at_least=1)
        self._accumulate = as_integer("Trainer: accumulate", accumulate, at_least=1)
        if self._accumulate > self._batch_size:
            raise ValueError(f"Trainer: accumulate must not exceed batch_size = {batch_size}, got {accumulate}")
        self._seed = check_seed("Trainer", seed)
        self._clip_norm = _check_clip_norm(clip_norm)
        self._net = net
        tuning.load(net.device)
        self._turns = Turns()
        self._core = _core.Trainer(
            net._core,
            self._loss.to_core(net.outputs, net.dtype),
            self._optimizer.to_core(),
            self._seed,
            self._clip_norm,
            self._accumulate,
        )
        self._in_flight = StepsInFlight(self._core)
        self._position = Position()
        self._history = History()
        self._best: dict[Key, Best] = {}
        self._stopping = False

    @property
    def net(self) -> Network:
        """The network, as trained so far."""
        return self._net

    @property
    def loss(self) -> Loss:
        """What is minimised."""
        return self._loss

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer's numbers."""
        return self._optimizer

    @property
    def schedule(self) -> Schedule:
        """Of the learning rate. A length that was left out is filled in by the first `fit`."""
        return self._schedule

    @schedule.setter
    def schedule(self, value: Schedule) -> None:
        if not isinstance(value, Schedule):
            raise DTypeError(f"Trainer: schedule must be one of resnetcore.schedules, got {value!r}")
        self._schedule = value

    @property
    def batch_size(self) -> int:
        """Rows in a step."""
        return self._batch_size

    @property
    def seed(self) -> int:
        """Of shuffles and dropout."""
        return self._seed

    @property
    def accumulate(self) -> int:
        """Micro-batches that a batch is cut into."""
        return self._accumulate

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self._core.steps

    @property
    def position(self) -> Position:
        """Epochs so far, and how far the next one is."""
        return self._position

    @property
    def epoch(self) -> int:
        """Complete epochs so far."""
        return self._position.epoch

    @property
    def history(self) -> History:
        """What every epoch so far measured."""
        return self._history

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self._rate(self._core.steps_begun)

    @property
    def last_gradient_norm(self) -> float:
        """Norm of all gradients of the last step, before clipping; measured only where there is a `clip_norm`."""
        return self._core.last_gradient_norm

    def stop(self) -> None:
        """Ends the running `fit` after this step, for callbacks."""
        self._stopping = True

    def step(self, x: Any, y: Any, sample_weight: Any = None, check_finite: bool = False) -> float:
        """One update on one batch, which does not count towards an epoch.

        Args:
            x: (n, inputs), n ≥ 1, in the CPU's memory or on the network's GPU.
            y: targets, as `Loss` describes them; likewise, and so are weights.
            sample_weight: (n,) or None.
            check_finite: raise ValueError for a NaN or an infinity in x or y; otherwise they reach the loss.

        Returns:
            The loss of before the update.

        Raises:
            FloatingPointError: a loss of NaN or infinity; nothing is updated.
            RuntimeError: another thread's `fit` of this trainer is running.
        """
        weight = None
        # Small networks feel every check, and a GPU that has nothing to do meanwhile.
        if sample_weight is not None or check_finite or not self._core.takes(x, y):
            x, y, weight = check_batch("step", self._net, self._loss, x, y, sample_weight, check_finite, True)
        turns = self._turns
        if turns.waiting:
            turns.let_others()
        with turns.lock:
            if turns.fitting is not None:
                turns.check("step")
                self._settle()
                if self._in_flight.failure is not None:  # of a step of the fit that this one is made within
                    raise self._in_flight.failure
            return self._core.step(x, y, self._checked_lr(), weight)

    def fit(
        self,
        X: Any,
        y: Any = None,
        epochs: int = 1,
        validation: Any = None,
        sample_weight: Any = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        progress: bool | None = None,
        check_finite: bool = False,
    ) -> History:
        """Trains until `epochs` epochs are complete, counting those of earlier calls and of a resumed run.

        Args:
            X: (n, inputs): an array, also on the network's GPU, where it stays and must not change meanwhile; a memory
                map, a frame; or, without y, an iterable of (x, y) or (x, y, weight) batches, iterated over once an epoch.
            y: targets, as `Loss` describes them.
            epochs: total number.
            validation: (X, y), (X, y, sample_weight) or an iterable of batches, evaluated after every epoch; the
                batches of a list are all checked first.
            sample_weight: (n,) or None.
            callbacks: one or several, called in their order; see `resnetcore.callbacks`.
            progress: True shows it, as a bar on a terminal and as a line an epoch elsewhere; None only on a terminal.
            check_finite: raise ValueError for a NaN or an infinity in X or y: before the first step for arrays, before
                its own step for a batch of an iterable.

        Returns:
            The history of all epochs so far.

        Raises:
            ShapeError, DTypeError, ValueError: bad data, other data than those of the epoch that is to be continued, or
                a schedule that comes to a rate of 0: before anything is changed.
            FloatingPointError: the loss became NaN or infinite; the weights are those of before that step.
            KeyboardInterrupt: Ctrl-C, between two steps; calling `fit` again continues with the next one. Other
                handlers of signals, too, run between two steps or while an iterable makes a batch.
            RuntimeError: another thread's `fit` of this trainer is running.
        """
        epochs = as_integer("fit: epochs", epochs, at_least=1)
        fit(
            self,
            lambda: prepare(self, X, y, epochs, validation, sample_weight, callbacks, progress, check_finite),
        )
        return self._history

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """{"loss", "accuracy"} or {"loss", "rmse"} on data as `fit` takes it, in inference mode."""
        data = as_data("evaluate", self._net, self._loss, X, y, sample_weight)
        net = self._net.copy() if self._turns.taken else self._net  # one step's weights for all rows
        return evaluate(net, self._loss, data)

    def restart_epoch(self) -> None:
        """Forgets how far the running epoch was, so that the next `fit` may use other data. Weights stay."""
        with self._between_steps():
            self._turns.check("restart_epoch")
            self._position = Position(epoch=self.epoch)

    def save(self, path: Any) -> None:
        """Writes all of the training to a safetensors file, whole or not at all; `Trainer.resume` reads it.

        While another thread trains, it holds what is there between two steps.
        """
        from .checkpoint import save_trainer

        save_trainer(self, path)

    @classmethod
    def resume(cls, path: Any, device: str = "cpu") -> Trainer:
        """The trainer that was saved: continued on the same kind of device, it gives the bits that it would have given
        uninterrupted.

        Args:
            path: the file.
            device: where its network is to be, as of `Network`; a file names none.

        Raises:
            DeviceError: a device that is not there.
            CheckpointError: no checkpoint of a trainer, or a damaged one.
        """
        from .checkpoint import load_trainer

        return load_trainer(path, device)

    def config(self) -> dict[str, Any]:
        """The settings as JSON has them, for `Trainer.from_config`."""
        return {
            "loss": self._loss.to_dict(self._net.outputs),
            "optimizer": self._optimizer.to_dict(),
            "schedule": self._schedule.to_dict(),
            "batch_size": self._batch_size,
            "seed": self._seed,
            "clip_norm": self._clip_norm,
            "accumulate": self._accumulate,
        }

    @classmethod
    def from_config(cls, net: Network, config: Mapping[str, Any]) -> Trainer:
        """A fresh trainer of `net` with the settings that `config()` gave.

        Raises:
            ValueError, DTypeError: missing or unknown names, or numbers out of range.
        """
        settings = with_just_names("from_config: config", config, _SETTINGS)
        settings["loss"] = Loss(
            **with_just_names("from_config: loss", settings["loss"], [f.name for f in fields(Loss)])
        )
        for name, module in (("optimizer", optimizers), ("schedule", schedules)):
            settings[name] = module.from_dict(with_names(f"from_config: {name}", settings[name], ["name"]))
        return cls(net, **settings)

    def state(self) -> dict[str, Any]:
        """Everything that training has changed but the network: `set_state` puts it back.

        Returns:
            {"position": {name: number} as `Position` has them, "history": {metric: list}, "optimizer": {name: array},
            "best": [what an `EarlyStopping` keeps]}.
            Shuffles and dropout follow from seed, epoch and step, so there is no random state.
        """
        with self._between_steps():
            return {
                "position": self._position._asdict(),
                "history": self._history.to_dict(),
                "optimizer": self._core.state(),
                "best": [best.to_dict() for best in self._best.values()],
            }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state()` gave, all or nothing.

        Raises:
            ValueError, DTypeError: names that are missing, arrays that do not belong to this network and optimizer, or
                impossible counts.
        """
        state = with_names("set_state: state", state, ("position", "history", "optimizer"))
        position = Position.from_dict(state["position"])
        history = History(with_names("set_state: history", state["history"]))
        optimizer = with_names("set_state: optimizer", state["optimizer"])
        arrays = self._net._arrays()
        found = [Best.from_dict(one, arrays, history.epochs) for one in state.get("best", ())]
        for best in found:
            self._net._check_buffers("set_state", best.arrays)
        with self._between_steps():
            self._turns.check("set_state")
            self._core.set_state(optimizer)
            self._position, self._history = position, history
            self._best = {best.key: best for best in found}

    def __reduce__(self) -> NoReturn:
        # Of copy, deepcopy and pickle. A shallow copy would train the same arrays with counts of its own.
        raise DTypeError(
            "Trainer: a trainer is neither copied nor pickled; write it with trainer.save(path), and Trainer.resume(path) "
            "gives another one that goes on in the same way"
        )

    def __repr__(self) -> str:
        return f"<Trainer of {self._net!r}: {self.epoch} epochs, {self.steps} steps>"

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Within, no step is made, and all that were begun are counted."""
        with self._turns.held():
            self._settle()
            yield

    def _settle(self, most: int = 0) -> None:
        """Waits until at most so many steps are in flight, and counts the others. By whoever holds the lock."""
        if len(self._in_flight) > most:
            self._position = self._in_flight.settle(self._position, most)

    def _begin_fit(self, schedule: Schedule) -> None:
        self._schedule, self._stopping = schedule, False

    def _rate(self, step: int) -> float:
        return self._schedule.rate(step, float(self._optimizer.lr))

    def _checked_lr(self) -> float:
        return schedules.checked_rate("Trainer", self._schedule, self._core.steps_begun, self._optimizer.lr)


def _check_clip_norm(value: Any) -> float | None:
    if value is None:
        return None
    number = as_number("Trainer: clip_norm", value)
    if not number > 0:
        raise ValueError(f"Trainer: clip_norm must be positive, got {number}")
    return number
