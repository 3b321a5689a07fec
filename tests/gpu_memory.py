"""Memory of the GPU, or of its emulation, that is not the library's: what another library on the GPU would have."""

import ctypes
import os
import re
from pathlib import Path

import numpy as np
import pytest

from capsules import Producer
from resnetcore import _core


class Place(ctypes.Structure):
    _fields_ = (("device", ctypes.c_int), ("context", ctypes.c_void_p))


HEADER = Path(__file__).parent.parent / "csrc" / "kernels" / "cuda" / "module.h"
_INT, _POINTER, _SIZE = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
_CALLED = {
    "make_current": (_INT, _INT, ctypes.POINTER(Place)),
    "restore": (None, ctypes.POINTER(Place)),
    "allocate": (_POINTER, _SIZE),
    "release": (None, _INT, _POINTER),
    "upload": (_INT, _POINTER, _POINTER, _SIZE),
    "synchronize": (_INT,),
    "stream": (_POINTER,),
}


def _fields():
    """Those of the header's struct, of which each is a word or begins one."""
    code = re.sub(r"//.*", "", HEADER.read_text())
    struct = re.search(r"^struct CudaModule \{(.*?)^\};", code, re.DOTALL | re.MULTILINE)[1]
    for name in (a or b for a, b in re.findall(r"\(\*(\w+)\)\(|(\w+);", struct)):
        yield name, ctypes.CFUNCTYPE(*_CALLED[name]) if name in _CALLED else _POINTER


class Module(ctypes.Structure):
    _fields_ = tuple(_fields())


def library():
    named = os.environ.get("RESNETCORE_CUDA_LIBRARY")
    return ctypes.CDLL(named or str(Path(_core.__file__).with_name("libresnetcore_cuda.so")))


def module():
    get = library().resnetcore_cuda_module
    get.restype = ctypes.POINTER(Module)
    return get().contents


def _current(index=0):
    before = Place()
    assert module().make_current(index, before) == 0
    return before


def stream():
    """The library's on the GPU."""
    before = _current()
    found = module().stream()
    module().restore(before)
    return found


class OtherStream:
    """Another program's, on the emulation alone: a stream of its own, or CUDA's of that number. What is asked of it is done
    when somebody waits for it."""

    def __init__(self, handle=None):
        self._cuda = cuda = library()
        if not hasattr(cuda, "emulated_stream"):
            pytest.skip("only an emulated stream is late by command; PyTorch's and CuPy's are tested on a GPU")
        cuda.emulated_stream.restype = _POINTER
        cuda.emulated_copy.argtypes = cuda.emulated_read.argtypes = [_POINTER, _POINTER, _POINTER, _SIZE]
        cuda.emulated_wait.argtypes = [_POINTER]
        self.handle = handle or cuda.emulated_stream()

    def write(self, to, values):
        """At the address `to`."""
        self._cuda.emulated_copy(self.handle, to, values.ctypes.data, values.nbytes)

    def read(self, values, at):
        """Fills `values` with what is at that address then."""
        self._cuda.emulated_read(self.handle, values.ctypes.data, at, values.nbytes)

    def wait(self):
        self._cuda.emulated_wait(self.handle)


def emulated(count):
    """How many "waits" of the CPU for the GPU there were, or "gathers"; on the emulation alone."""
    if not hasattr(library(), "emulated_stream"):
        pytest.skip("a GPU's module does not count")
    return getattr(library(), f"emulated_{count}")()


class Memory:
    """A copy of `values` in the GPU's memory, laid out as they are; `write` fills it anew."""

    def __init__(self, values):
        base = values if values.base is None else values.base
        assert isinstance(base, np.ndarray)
        before = _current()
        self.allocated = module().allocate(max(base.nbytes, 1))
        module().restore(before)
        self.pointer = self.allocated + values.ctypes.data - base.ctypes.data
        self.write(base)

    def write(self, base):
        before = _current()
        assert module().upload(self.allocated, base.ctypes.data, base.nbytes) == 0
        assert module().synchronize() == 0
        module().restore(before)

    def __del__(self):
        module().release(0, self.allocated)


class OnGpu(Producer):
    """`values` on the GPU, offered by DLPack."""

    def __init__(self, values, **changes):
        self.memory = Memory(values)
        super().__init__(values, **{"device_kind": 2, "data": self.memory.pointer, **changes})


class WithInterface:
    """`values` on the GPU, offered by __cuda_array_interface__."""

    def __init__(self, values, **changes):
        self.memory = Memory(values)
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.memory.pointer, False),
            "strides": values.strides,
            "version": 3,
            **changes,
        }
