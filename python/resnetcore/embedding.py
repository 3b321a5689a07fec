"""Where the C interface lies, for programs without Python: a header, a library, and a CMake package that knows both.

    cc main.c -I$(resnetcore --include-dir) -L$(resnetcore --lib-dir) -lresnetcore -Wl,-rpath,$(resnetcore --lib-dir)
    cmake -Dresnetcore_DIR=$(resnetcore --cmake-dir) …        # find_package(resnetcore), target resnetcore::resnetcore
    PKG_CONFIG_PATH=$(resnetcore --lib-dir)/pkgconfig pkg-config --cflags --libs resnetcore

The parts find each other by their relative places.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["get_cmake_dir", "get_include", "get_library"]


def get_include() -> str:
    """The folder of `resnetcore.h` and `resnetcore.hpp`."""
    return _path("include")


def get_library() -> str:
    """The file `libresnetcore.so`."""
    return _path("lib", "libresnetcore.so")


def get_cmake_dir() -> str:
    """The folder that `find_package(resnetcore)` wants as `resnetcore_DIR`."""
    return _path("lib", "cmake", "resnetcore")


def _path(*parts: str) -> str:
    return str(files("resnetcore").joinpath(*parts))
