"""DLPack capsules by hand: a producer that can offer anything, and a consumer that looks at what it was given."""

import ctypes

CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # of NumPy's kinds
BFLOAT = 4


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # a dying object may not be counted as a py_object is


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", DELETER))


class VersionedManaged(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


api = ctypes.pythonapi
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, DESTRUCTOR]
api.PyCapsule_IsValid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]


_lent = []  # producers, once for each capsule whose deleter may still be called, which is theirs


class Producer:
    """Offers `values` as a capsule; `changes` are made to its tensor. Counts how often its deleter has run."""

    def __init__(self, values, versioned=True, major=1, flags=0, strides=True, name=None, **changes):
        self.values = values
        self.deleted = 0
        self.asked = []  # what each call of __dlpack__ was given
        self._name = name or (b"dltensor_versioned" if versioned else b"dltensor")
        self._shape = (ctypes.c_int64 * values.ndim)(*values.shape)
        steps = [s // values.itemsize for s in values.strides]
        self._strides = (ctypes.c_int64 * values.ndim)(*steps)
        tensor = Tensor(
            values.ctypes.data, 1, 0, values.ndim, CODES[values.dtype.kind], 8 * values.itemsize, 1, self._shape
        )
        if strides:
            tensor.strides = self._strides
        for field, value in changes.items():
            setattr(tensor, field, value)
        self._deleter = DELETER(self._delete)
        if versioned:
            self._managed = VersionedManaged(major, 0, None, self._deleter, flags, tensor)
        else:
            self._managed = Managed(tensor, None, self._deleter)
        # As every producer's: a capsule that nobody has taken deletes its tensor.
        self._destructor = DESTRUCTOR(self._destroy)

    def _delete(self, _):
        self.deleted += 1
        if self in _lent:
            _lent.remove(self)

    def _destroy(self, capsule):
        if api.PyCapsule_IsValid(capsule, self._name):
            self._delete(None)

    def __dlpack__(self, **arguments):
        self.asked.append(arguments)
        _lent.append(self)
        return api.PyCapsule_New(ctypes.addressof(self._managed), self._name, self._destructor)

    def __dlpack_device__(self):
        return (self._managed.tensor.device_kind, self._managed.tensor.device_index)


class Consumed:
    """What a capsule holds, taken as a consumer takes it; `delete` is what it owes the producer."""

    def __init__(self, capsule):
        versioned = api.PyCapsule_IsValid(id(capsule), b"dltensor_versioned")
        name = b"dltensor_versioned" if versioned else b"dltensor"
        kind = VersionedManaged if versioned else Managed
        self._managed = managed = kind.from_address(api.PyCapsule_GetPointer(capsule, name))
        self._used = b"used_" + name  # a capsule keeps no copy of its name
        api.PyCapsule_SetName(capsule, self._used)
        self._capsule = capsule
        self.version = (managed.major, managed.minor) if versioned else None
        self.flags = managed.flags if versioned else None
        self.tensor = tensor = Tensor.from_buffer_copy(managed.tensor)
        self.shape, self.strides = tuple(tensor.shape[: tensor.ndim]), tuple(tensor.strides[: tensor.ndim])

    def delete(self):
        self._managed.deleter(ctypes.addressof(self._managed))
