"""Why there is no CUDA device: every reason, in a process of its own, on a stand-in for the module and on the real one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnetcore import _core

ROOT = Path(__file__).parent.parent
MODULE = Path(_core.__file__).with_name("libresnetcore_cuda.so")
ASK = """
import sys
from resnetcore import _core
try:
    print("found", _core.check_device(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


# The C interface's words.
ASK_IN_C = """
import ctypes, sys
import resnetcore as rc
lib, device = ctypes.CDLL(rc.get_library()), ctypes.c_int32()
lib.rc_last_error.restype = lib.rc_status_name.restype = ctypes.c_char_p
status = lib.rc_find_device(sys.argv[1].encode(), ctypes.byref(device))
print(lib.rc_status_name(status).decode(), lib.rc_last_error().decode() or device.value)
"""


def run(code, *arguments, **environment):
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler to build the stand-in with")
    library = tmp_path_factory.mktemp("cuda") / "libstand_in.so"
    source = ROOT / "tests" / "cpp" / "cuda_module_stand_in.cpp"
    command = [compiler, "-std=c++17", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("cuda", {"DRIVER": 0, "GPUS": -1}, "there is no NVIDIA driver: install one"),
        ("cuda", {"DRIVER": 12020, "GPUS": -1}, "driver is for CUDA 12.2, and this build is made with 13.0: update"),
        ("cuda", {"DRIVER": 13000, "GPUS": -1}, "CUDA does not start: the stand-in's words"),
        (
            "cuda",
            {"DRIVER": 13000, "GPUS": 0},
            "a driver (CUDA 13.0) but no GPU that it can use with CUDA_VISIBLE_DEVICES=7",
        ),
        ("cuda:1", {"DRIVER": 13000, "GPUS": 1}, "there is no cuda:1: this process has 1 GPU, cuda:0"),
        ("cuda:5", {"DRIVER": 13000, "GPUS": 2}, "there is no cuda:5: this process has 2 GPUs, cuda:0 to cuda:1"),
        ("cuda:1", {"DRIVER": 13000, "GPUS": 2}, "code for sm_80 sm_90a compute_90, found Second GPU, sm_70"),
        ("cuda", {"VERSION": 1}, "it is from another build"),
    ],
)
def test_the_reason_is_told(stand_in, device, settings, expected):
    variables = {f"STAND_IN_{name}": value for name, value in settings.items()}
    told, told_in_c = (
        run(code, device, RESNETCORE_CUDA_LIBRARY=stand_in, CUDA_VISIBLE_DEVICES="7", **variables)
        for code in (ASK, ASK_IN_C)
    )
    assert told.startswith(f'DeviceError device "{device}" is not available: ')
    assert expected in told and told_in_c == told.replace("DeviceError", "RC_DEVICE_ERROR", 1)


def test_a_path_that_is_not_there_is_refused(stand_in):
    there = {"RESNETCORE_CUDA_LIBRARY": stand_in, "STAND_IN_DRIVER": 13000, "STAND_IN_GPUS": 1}
    told = run(ASK, "cuda", RESNETCORE_CUDA_PATH="hopper", **there)
    assert told == 'DeviceError device "cuda" is not available: cuda:0: the stand-in\'s words'


def test_a_gpu_without_memory_for_the_kernels(stand_in):
    full = {"STAND_IN_DRIVER": 13000, "STAND_IN_GPUS": 1, "STAND_IN_STATUS": 2}
    told, told_in_c = (run(code, "cuda", RESNETCORE_CUDA_LIBRARY=stand_in, **full) for code in (ASK, ASK_IN_C))
    assert told_in_c == told.replace("MemoryError", "RC_MEMORY_ERROR", 1)
    assert told.startswith("MemoryError cuda:0 has too little memory left to load resnetcore's kernels (the stand-in's")
    assert "end what else uses it" in told and "another GPU or the CPU" in told


@pytest.mark.parametrize(("asked", "name"), [("cuda", "cuda:0"), ("cuda:0", "cuda:0")])
def test_a_gpu_is_found(stand_in, asked, name):
    told = run(ASK, asked, RESNETCORE_CUDA_LIBRARY=stand_in, STAND_IN_DRIVER=13000, STAND_IN_GPUS=2)
    assert told == f"found {name}"


@pytest.mark.parametrize(
    "name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1 ", "cuda0", "CUDA", "", "cuda:99999999999"]
)
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match=r'device must be "cpu", "cuda" or a GPU\'s number as in "cuda:1", got'):
        _core.check_device(name)


def test_a_build_without_the_module_says_how_to_have_one(tmp_path):
    told = run(ASK, "cuda", RESNETCORE_CUDA_LIBRARY=tmp_path / "none.so")
    assert told.startswith('DeviceError device "cuda" is not available: this build of resnetcore has no CUDA')
    assert "RESNETCORE_CUDA=ON pip install" in told


def test_a_module_that_cannot_be_loaded(tmp_path):
    library = tmp_path / "broken.so"
    library.write_text("this is no library")
    told = run(ASK, "cuda", RESNETCORE_CUDA_LIBRARY=library)
    assert "DeviceError" in told and "cannot be loaded" in told and "broken.so" in told


CONFIG = "from resnetcore.config import config; print(config()['CUDA'])"


def test_the_configuration_shows_gpus_or_the_reason(stand_in, tmp_path):
    assert run(CONFIG, RESNETCORE_CUDA_LIBRARY=tmp_path / "none.so").startswith("not available: this build")
    told = run(CONFIG, RESNETCORE_CUDA_LIBRARY=stand_in, STAND_IN_DRIVER=0, STAND_IN_GPUS=-1)
    assert told.startswith("built with CUDA 13.0 for sm_80 sm_90a compute_90; not available: there is no NVIDIA driver")
    told = run(CONFIG, RESNETCORE_CUDA_LIBRARY=stand_in, STAND_IN_DRIVER=13010, STAND_IN_GPUS=2)
    assert told == (
        "built with CUDA 13.0 for sm_80 sm_90a compute_90; driver for CUDA 13.1; "
        "cuda:0 First GPU (sm_90), cuda:1 Second GPU (sm_70)"
    )


FORK = """
import os
from resnetcore import _core
if {used_before}:
    _core.check_device("cuda")
child = os.fork()
if child:
    os.waitpid(child, 0)
who = "parent" if child else "child"
try:
    print(who, "found", _core.check_device("cuda"), flush=True)
except Exception as error:
    print(who, type(error).__name__, error, flush=True)
"""


@pytest.mark.parametrize("used_before", [True, False])
def test_a_forked_child_gets_cuda_only_if_the_parent_had_not_used_it(stand_in, used_before):
    variables = {"RESNETCORE_CUDA_LIBRARY": stand_in, "STAND_IN_DRIVER": 13000, "STAND_IN_GPUS": 1}
    child, parent = run(FORK.format(used_before=used_before), **variables).splitlines()
    assert parent == "parent found cuda:0"
    if used_before:
        assert child.startswith("child DeviceError") and "forked" in child and "spawn" in child
    else:
        assert child == "child found cuda:0"


MANAGED = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import resnetcore as rc
from capsules import Producer
shared = Producer(np.ones((2, 3), "float32"), device_kind=13)
try:
    rc.Network(3, [rc.Layer(1)]).predict(shared)
except Exception as error:
    print(type(error).__name__, error)
print(shared.deleted)
"""


def test_memory_shared_with_a_gpu_that_cannot_be_waited_for(tmp_path):
    told, deleted = run(MANAGED, str(ROOT / "tests"), RESNETCORE_CUDA_LIBRARY=tmp_path / "none.so").splitlines()
    assert (
        told.startswith("BufferError predict: X: ") and "cannot be waited for: this build of resnetcore has no" in told
    )
    assert told.endswith("; copy it to the CPU first")
    assert deleted == "1"


def test_importing_opens_no_module():
    maps = run("import resnetcore, resnetcore.ops; print(open('/proc/self/maps').read())")
    assert "_core" in maps
    assert "libresnetcore_cuda" not in maps and "libcuda" not in maps


@pytest.mark.skipif(not MODULE.exists(), reason="this build has no CUDA module")
def test_the_real_module_loads_and_answers_without_a_driver():
    environment = {"RESNETCORE_CUDA_LIBRARY": ""}  # the installed one, whatever the variable names
    if run("from resnetcore import _core; print(_core.cuda_info()['driver_version'])", **environment) != "0":
        pytest.skip("there is a driver")
    assert "there is no NVIDIA driver" in run(ASK, "cuda", **environment)
    assert run(CONFIG, **environment).startswith("built with CUDA ")


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["-m", "gpu"], 1)])
def test_who_asks_for_a_gpu_has_to_have_one(arguments, status):
    """Else a run in which every test was skipped would count as one that passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "refusals", *arguments]
    environment = {**os.environ, "RESNETCORE_CUDA_LIBRARY": "/no/such/library"}
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "test_device.py")], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "there is no /no/such/library" in done.stdout
