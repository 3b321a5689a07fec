"""The exceptions of resnetcore. Each is also the built-in exception that a caller would expect."""

from __future__ import annotations


class ResnetcoreError(Exception):
    """The base of every error of this library."""


class ShapeError(ResnetcoreError, ValueError):
    """An array or a layer whose shape does not fit."""


class DTypeError(ResnetcoreError, TypeError):
    """An array or argument of a type that is not taken."""


class DeviceError(ResnetcoreError, RuntimeError):
    """A device that is not there, or an array on another one."""


class ArrayDeviceError(DeviceError, BufferError):
    """An array in another device's memory: also the BufferError that DLPack asks for."""


class CheckpointError(ResnetcoreError, ValueError):
    """A file that is not a sound checkpoint of what it should be."""


class ConversionError(ResnetcoreError, ValueError):
    """A model of another program that no `Network` is equal to."""


class BuildFeatureError(ResnetcoreError, RuntimeError):
    """Something that this build or this processor does not offer."""


class BusyError(ResnetcoreError, RuntimeError):
    """A trainer that another thread is training."""
