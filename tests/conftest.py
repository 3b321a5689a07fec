"""Settings of the whole suite."""

import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# Beside other processes, threads of OpenMP and OpenBLAS spin for cores that those have, which made most tests with PyTorch
# twice as long. Read where NumPy and PyTorch are imported, later. Ours are as many as they would be.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "RESNETCORE_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    )
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

# What this machine's user has tuned is no matter of the tests'.
os.environ["RESNETCORE_TUNING"] = ""

# The same examples every time: a failure seen once is seen again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A shell's background job ignores Ctrl-C, and its children with it: tests that press it need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Where tests run side by side, those marked `alone` wait for the others to end, and the others for them."""
    if not hasattr(item.config, "workerinput"):  # one process, or one that a test has started
        return (yield)
    here = Path(__file__)
    with open(here) as running, open(here.with_name("README.md")) as entrance:  # for their locks
        fcntl.flock(entrance, fcntl.LOCK_EX)  # nobody overtakes who waits for an empty room
        fcntl.flock(running, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(entrance, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture
def one_thread():
    """For PyTorch and us by turns: where cores are few, threads that wait for the other's take seconds."""
    import torch

    import resnetcore as rc

    before = torch.get_num_threads(), rc.get_num_threads()
    torch.set_num_threads(1)
    rc.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    rc.set_num_threads(before[1])


@pytest.fixture(scope="session")
def high_kernels():
    """Products of matmul precision "high", whether they gain anything here or not."""
    import resnetcore as rc
    from resnetcore import _core

    try:
        _core.Vjp(1, [rc.Layer(1).to_dict()], "bfloat16x2", True, False)
    except rc.BuildFeatureError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def device(request) -> str:
    """The first GPU, or its emulation where RESNETCORE_CUDA_LIBRARY names one; who asks for tests on a GPU has to have one."""
    from resnetcore import DeviceError, _core

    try:
        return _core.check_device("cuda")
    except DeviceError as error:
        if request.config.getoption("markexpr") == "gpu":
            pytest.fail(f"pytest -m gpu: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request) -> str:
    """The CPU, and the device as above: for what is the same on both."""
    return "cpu" if request.param == "cpu" else request.getfixturevalue("device")


@pytest.fixture
def float64_in_jax():
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
