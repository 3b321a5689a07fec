"""Threads, forks, signals and the end of the process: no hang, no crash, no other result."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import resnetcore as rc

SETUP = """
import os, sys, threading, time
import numpy as np
import resnetcore as rc
rc.set_num_threads(2)
net = rc.models.resnet(64, 10, 256, 10, seed=0)
x = np.random.default_rng(0).standard_normal((512, 64)).astype("float32")
y = np.zeros(512, int)
"""


def run(code, *before):
    """`before`: a command that ends with running another."""
    script = SETUP + textwrap.dedent(code)
    return subprocess.run([*before, sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_threads():
    done = run("""
        before = net(x)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(net(x), before) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(net(x), before)
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has of memory and threads is read from /proc")
def test_where_no_thread_can_be_had_there_are_fewer():
    """As in a container that has no process left, or no memory for a thread's stack."""
    done = run(
        """
        import resource
        def threads():
            return len(os.listdir("/proc/self/task"))
        before, pages = threads(), int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + 2**29, -1))
        alone = net(x), rc.Trainer(net).step(x, y)
        assert threads() == before
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        twin = rc.models.resnet(64, 10, 256, 10, seed=0)
        assert np.array_equal(alone[0], twin(x)) and alone[1] == rc.Trainer(twin).step(x, y)
        assert threads() == before + 1
        """,
        *("sh", "-c", f'ulimit -s {2**20} || exit 77; exec "$@"', "sh"),  # KiB: a thread's stack is as large
    )
    if done.returncode == 77:
        pytest.skip("the system does not let a stack be so large")
    assert done.returncode == 0, done.stderr


def test_several_threads_predict():
    net = rc.models.resnet(20, 3, 64, 8, seed=0)
    batches = [np.random.default_rng(i).standard_normal((50 + i, 20)).astype("float32") for i in range(16)]
    serial = [net(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(net, batches * 5), serial * 5, strict=True):
            assert np.array_equal(got, expected)


def test_a_call_while_the_interpreter_ends():
    done = run("""
        class Last:
            def __init__(self, net, x):
                self.net, self.x, self.before = net, x, net(x).tobytes()
            def __del__(self):
                os.write(1, b"same" if self.net(self.x).tobytes() == self.before else b"other")
        last = Last(net, x)
        del net, x
    """)
    assert (done.returncode, done.stdout) == (0, "same"), done.stderr


def test_a_network_deleted_in_use_and_exit_with_threads_alive():
    done = run("""
        def work(net):
            while True:
                net(x)
        for _ in range(2):
            threading.Thread(target=work, args=(net,), daemon=True).start()
        del net
        time.sleep(0.2)
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.alone
def test_interrupt_stops_at_a_step_within_200_ms():
    script = SETUP + textwrap.dedent("""
        trainer = rc.Trainer(net, optimizer=rc.SGD(lr=1e-4), batch_size=64)
        trainer.step(x, y)
        print("ready", flush=True)
        try:
            trainer.fit(x, y, epochs=10**6, progress=False)
        except KeyboardInterrupt:
            print(time.time(), flush=True)
        before = trainer.steps
        trainer.step(x, y)
        assert trainer.steps == before + 1
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        import time

        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        line = child.stdout.readline()
        assert child.wait(30) == 0
    assert float(line) - sent < 0.2
