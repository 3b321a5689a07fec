"""libresnetcore.so through ctypes: the declarations of resnetcore.h, and NumPy arrays as its matrices, or a GPU's memory.

Its errors become `Failed`, which holds the code's name and the message.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int32, c_int64, c_uint64, c_void_p

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

import resnetcore as rc
from gpu_memory import Memory
from resnetcore import _core

DTYPES = {np.dtype("f4"): 0, np.dtype("f8"): 1, np.dtype(ml_dtypes.bfloat16): 2, np.dtype("i8"): 3}
ACTIVATIONS = ("identity", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus")
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber")
SGD, ADAM, ADAMW = 0, 1, 2
CPU, CUDA = 0, 1


class Matrix(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p), ("rows", c_int64), ("columns", c_int64), ("stride", c_int64), ("dtype", c_int32),
        ("device", c_int32),
    ]  # fmt: skip


class Parameter(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p), ("rows", c_int64), ("columns", c_int64), ("dimensions", c_int32), ("trained", c_int32)
    ]  # fmt: skip


class Training(ctypes.Structure):
    _fields_ = [
        ("loss", c_int32), ("optimizer", c_int32), ("label_smoothing", c_double), ("delta", c_double),
        ("class_weight", POINTER(c_double)), ("classes", c_int64),
        ("momentum", c_double), ("nesterov", c_int32), ("decay_weights_only", c_int32), ("weight_decay", c_double),
        ("beta1", c_double), ("beta2", c_double), ("eps", c_double), ("clip_norm", c_double), ("accumulate", c_int64),
        ("seed", c_uint64),
    ]  # fmt: skip


lib = ctypes.CDLL(rc.get_library())
_M, _H, _S = POINTER(Matrix), c_void_p, c_void_p
_BLOCK = [c_int, _M, _M, _M, c_int, _M, c_int32]
_SIGNATURES = {
    "rc_last_error": (c_char_p, []),
    "rc_status_name": (c_char_p, [c_int32]),
    "rc_version": (c_char_p, []),
    "rc_isa": (c_char_p, []),
    "rc_set_num_threads": (c_int32, [c_int]),
    "rc_get_num_threads": (c_int, []),
    "rc_find_device": (c_int32, [c_char_p, POINTER(c_int32)]),
    "rc_device_name": (c_char_p, [c_int32]),
    "rc_cuda_count": (c_int32, [POINTER(c_int)]),
    "rc_activation_name": (c_char_p, [c_int32]),
    "rc_residual_forward": (c_int32, [*_BLOCK, _M]),
    "rc_residual_forward_on": (c_int32, [*_BLOCK, _M, _S]),
    "rc_residual_backward": (c_int32, [_M, _M, *_BLOCK, _M, _M, _M, _M]),
    "rc_residual_backward_on": (c_int32, [_M, _M, *_BLOCK, _M, _M, _M, _M, _S]),
    "rc_residual_update": (c_int32, [_M, _M, *_BLOCK, c_double, _M, _M]),
    "rc_residual_update_on": (c_int32, [_M, _M, *_BLOCK, c_double, _M, _M, _S]),
    "rc_network_load": (c_int32, [c_char_p, POINTER(_H)]),
    "rc_network_save": (c_int32, [_H, c_char_p]),
    "rc_network_copy": (c_int32, [_H, POINTER(_H)]),
    "rc_network_copy_to": (c_int32, [_H, c_int32, POINTER(_H)]),
    "rc_network_free": (None, [_H]),
    "rc_network_inputs": (c_int64, [_H]),
    "rc_network_outputs": (c_int64, [_H]),
    "rc_network_layers": (c_int64, [_H]),
    "rc_network_dtype": (c_int32, [_H]),
    "rc_network_device": (c_int32, [_H]),
    "rc_network_predict": (c_int32, [_H, _M, _M]),
    "rc_network_predict_on": (c_int32, [_H, _M, _M, _S]),
    "rc_network_parameter_count": (c_int64, [_H]),
    "rc_network_parameter": (c_int32, [_H, c_int64, POINTER(Parameter)]),
    "rc_network_get_parameters": (c_int32, [_H, c_int, POINTER(c_char_p), _M]),
    "rc_network_set_parameters": (c_int32, [_H, c_int, POINTER(c_char_p), _M]),
    "rc_training_defaults": (Training, [c_int32, c_int32]),
    "rc_trainer_create": (c_int32, [_H, POINTER(Training), POINTER(_H)]),
    "rc_trainer_free": (None, [_H]),
    "rc_trainer_step": (c_int32, [_H, _M, _M, _M, c_double, POINTER(c_double)]),
    "rc_trainer_step_on": (c_int32, [_H, _M, _M, _M, c_double, POINTER(c_double), _S]),
    "rc_trainer_steps": (c_int64, [_H]),
}
for _name, (_result, _arguments) in _SIGNATURES.items():
    _function = getattr(lib, _name)
    _function.restype, _function.argtypes = _result, _arguments
DECLARED = set(_SIGNATURES)


class Failed(Exception):
    def __init__(self, status):
        self.code = lib.rc_status_name(status).decode()
        super().__init__(f"{self.code}: {lib.rc_last_error().decode()}")


def check(status):
    if status != 0:
        raise Failed(status)


def find_device(name):
    number = c_int32(-7)
    check(lib.rc_find_device(name.encode(), byref(number)))
    return number.value


class OnGpu:
    """A copy of an array with contiguous rows in a GPU's memory, laid out as it is."""

    def __init__(self, values, device=CUDA):
        self.values, self.memory = values, Memory(values)
        self.matrix = matrix(values)
        self.matrix.data, self.matrix.device = self.memory.pointer, device

    def __len__(self):
        return len(self.values)

    def numpy(self):
        return self._read(self.memory.pointer, self.values)

    def around(self):
        """The gaps between its rows too, with zeros in place of the elements."""
        base = self.values if self.values.base is None else self.values.base
        found = self._read(self.memory.allocated, base)
        start = (self.values.ctypes.data - base.ctypes.data) // base.itemsize
        as_strided(found.reshape(-1)[start:], self.values.shape, self.values.strides)[...] = 0
        return found

    def _read(self, address, like):
        dtype = _core.bfloat16_dtype() if like.dtype == ml_dtypes.bfloat16 else like.dtype
        strides = [step // like.itemsize for step in like.strides]
        there = _core.array_at("cuda:0", address, like.shape, strides, dtype, self).numpy()
        return there.view("u2").view(ml_dtypes.bfloat16) if there.dtype.kind == "V" else there


def matrix(array):
    """A view of a NumPy array with contiguous rows, or of a GPU's; a vector is 1×N."""
    if isinstance(array, OnGpu):
        return array.matrix
    array = array if array.ndim == 2 else array[None]
    return Matrix(array.ctypes.data, *array.shape, array.strides[0] // array.itemsize, DTYPES[array.dtype], CPU)


def matrices(arrays):
    """A C array of them, or NULL for None."""
    return None if arrays is None else (Matrix * len(arrays))(*map(matrix, arrays))


def pointer(array):
    return None if array is None else byref(matrix(array))


def _block(sources, weights, bias, identity, activation):
    return (
        len(sources), matrices(sources), matrices(weights), pointer(bias),
        len(identity), matrices(identity), ACTIVATIONS.index(activation),
    )  # fmt: skip


def call(function, *arguments, stream=None):
    """The function, or the one that is given a stream."""
    if stream is None:
        check(getattr(lib, function)(*arguments))
    else:
        check(getattr(lib, f"{function}_on")(*arguments, stream))


def forward(out, sources, weights, bias=None, identity=(), activation="relu", *, stream=None):
    block = _block(sources, weights, bias, identity, activation)
    call("rc_residual_forward", *block, pointer(out), stream=stream)


def backward(grad, a, sources, weights, bias=None, identity=(), activation="relu", *, into, stream=None):
    """`into`: d_sources, d_weights, d_bias, d_identity, each None where it is not wanted."""
    d_sources, d_weights, d_bias, d_identity = into
    block = _block(sources, weights, bias, identity, activation)
    results = matrices(d_sources), matrices(d_weights), pointer(d_bias), matrices(d_identity)
    call("rc_residual_backward", pointer(grad), pointer(a), *block, *results, stream=stream)


def update(grad, a, sources, weights, bias=None, identity=(), activation="relu", *, lr, into=(None, None), stream=None):
    block = _block(sources, weights, bias, identity, activation)
    call("rc_residual_update", pointer(grad), pointer(a), *block, lr, *map(matrices, into), stream=stream)


class Network:
    def __init__(self, path):
        self.handle = c_void_p()
        check(lib.rc_network_load(os.fsencode(path), byref(self.handle)))

    def copied(self, device=None):
        """A copy on its device, or on another."""
        other = object.__new__(Network)
        other.handle = c_void_p()
        handle = byref(other.handle)
        if device is None:
            check(lib.rc_network_copy(self.handle, handle))
        else:
            check(lib.rc_network_copy_to(self.handle, device, handle))
        return other

    @property
    def device(self):
        return lib.rc_network_device(self.handle)

    def __del__(self):
        lib.rc_network_free(self.handle)

    def save(self, path):
        check(lib.rc_network_save(self.handle, os.fsencode(path)))

    def predict(self, x, out=None, stream=None):
        if out is None:
            out = np.empty((len(x), lib.rc_network_outputs(self.handle)), x.dtype)
        call("rc_network_predict", self.handle, pointer(x), pointer(out), stream=stream)
        return out

    def described(self):
        """Every parameter and buffer: name, shape as Python has it, whether it is trained."""
        found = []
        for index in range(lib.rc_network_parameter_count(self.handle)):
            p = Parameter()
            check(lib.rc_network_parameter(self.handle, index, byref(p)))
            shape = (p.rows, p.columns) if p.dimensions == 2 else (p.columns,)
            found.append((p.name.decode(), shape, bool(p.trained)))
        return found

    def get(self, names, arrays):
        check(lib.rc_network_get_parameters(self.handle, len(names), _names(names), matrices(arrays)))

    def set(self, values):
        check(lib.rc_network_set_parameters(self.handle, len(values), _names(values), matrices(list(values.values()))))


class Trainer:
    def __init__(self, net, loss, optimizer, /, **changes):
        self.handle = c_void_p()
        settings = lib.rc_training_defaults(LOSSES.index(loss), optimizer)
        for name, value in changes.items():
            if name == "class_weight":
                settings.classes, value = len(value), (c_double * len(value))(*value)
            setattr(settings, name, value)
        check(lib.rc_trainer_create(net.handle, byref(settings), byref(self.handle)))

    def __del__(self):
        lib.rc_trainer_free(self.handle)

    def step(self, x, y, lr, sample_weight=None, stream=None):
        loss = c_double()
        batch = pointer(x), pointer(_column(y)), pointer(_column(sample_weight))
        call("rc_trainer_step", self.handle, *batch, lr, byref(loss), stream=stream)
        return loss.value

    @property
    def steps(self):
        return lib.rc_trainer_steps(self.handle)


def _column(array):
    """A vector of NumPy's as a column."""
    return array[:, None] if isinstance(array, np.ndarray) and array.ndim == 1 else array


def _names(names):
    return (c_char_p * len(names))(*(name.encode() for name in names))
