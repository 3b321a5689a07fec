"""Gates on the CUDA module as it is installed, which need no GPU: what it exports and links to, that every kernel is there
for every GPU, keeps its values in registers, and multiplies on the matrix units where it should.

Skipped where the build has no module or cuobjdump is not there (PyPI: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm); under
RESNETCORE_CUDA=ON, as in CI, that fails instead.
"""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from resnetcore import _core

MODULE = Path(_core.__file__).with_name("libresnetcore_cuda.so")
LIBRARIES = {"libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0"}
LIBRARIES |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# Kernels (a part of the mangled name) that may keep values in local memory, and why.
LOCAL_MEMORY: dict[str, str] = {}
# A kernel of a product, by what it stores, and the instruction that must do its multiplying.
PRODUCTS = r"\d(sum|weights)_kernel"
INSTRUCTIONS = {"8bfloat16": "HMMA.16816.F32.BF16", "10bfloat16x2": "HMMA.16816.F32.BF16", "If": "FFMA", "Id": "DFMA"}
# A stage is 32 terms of a warp's 16 × 32 sums, an instruction 16 of 16 × 8; two halves are three products.
MATRIX_INSTRUCTIONS = {"8bfloat16": 8, "10bfloat16x2": 24, "If": 0, "Id": 0}
# Kernels of the path of compute capability 8.0, of a tile of one panel and of two, and how often their code has a
# product, a load of four matrices, and a copy past the registers: those of one stage, and of the stages before the first.
COPIED = {"copied_sum_kernelILi1E": (16, 8, 12), "copied_sum_kernelILi2E": (32, 12, 16),
          "copied_weights_kernelILi1E": (16, 8, 12), "copied_weights_kernelILi2E": (32, 12, 16)}  # fmt: skip
# Two blocks of the smaller tiles are on a multiprocessor at a time, which has 65,536 registers.
COPIED_REGISTERS = {"ILi1E": 128, "ILi2E": 224}


class Written(NamedTuple):
    """What the code of a kernel of Hopper's path has for sm_90a: products and copies of a box as of one stage (of broad tiles
    also the copies of a tile's skip and of its results, eight each); the registers that its launch bounds leave a thread
    before its warpgroup gives some back or takes more, and how many kinds of warpgroups do so: none, where ptxas ignores that.
    """

    products: int
    boxes: int
    registers: int
    warpgroups: int


# By a part of the mangled name, which has its length before it.
HOPPER = {
    "wide_sum_kernel": Written(4, 2, 96, 3),
    "broad_sum_kernel": Written(4, 18, 168, 2),
    "wide_weights_kernel": Written(4, 4, 168, 2),
    "12chain_kernel": Written(4, 1, 96, 2),
    "fused_chain_kernel": Written(4, 1, 96, 2),
}
# A chain's is of half the columns: its sums leave registers for four warpgroups. A broad tile's is of twice as many.
HOPPER_PRODUCT = r"HGMMA\.64x(256|128|64)x16\.F32\.BF16"
# A stage's fence before its products, and the waits for those of the stage before and of the last: where ptxas serialises
# wgmma or waits for it early, which it remarks (C7510, C7517, C7519, …), there are more of either.
HOPPER_ORDER = {"WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR.LE": 2}
# What blocks that meet need, in this order: all of a block's writes are seen, it comes, it looks until all have come, and
# what the first cache holds is forgotten.
MEETING = ("MEMBAR.ALL.GPU", "ATOM.E.ADD.STRONG.GPU", "LD.E.STRONG.GPU", "CCTL.IVALL")
OF_MEMORY = r"MEMBAR|ATOM\.E|LD\.E|LDG|CCTL"
COUNTED = rf"\b(HMMA|LDSM|LDGSTS|HGMMA|UTC\w*MMA|FFMA|DFMA|UTMALDG|UTMASTG|USETMAXREG|WARPGROUP|{OF_MEMORY})[.\w]*"


def missing(what):
    if os.environ.get("RESNETCORE_CUDA") == "ON":
        pytest.fail(what)
    pytest.skip(what)


def tool(name):
    """The path of one of CUDA's programs: a toolkit's, or a wheel's in this environment."""
    found = shutil.which(name)
    spec = importlib.util.find_spec("nvidia")
    wheels = (
        [p for folder in spec.submodule_search_locations for p in Path(folder).glob(f"cu*/bin/{name}")] if spec else []
    )
    if wheels:
        found = str(max(wheels))
    if found is None:
        missing(f"there is no {name}")
    return found


def output(*command, cwd=None):
    environment = {**os.environ, "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=cwd).stdout


def kernels_of(text, line):
    """{architecture: {kernel: what `line` matches after its name}} of cuobjdump's text."""
    found, arch = defaultdict(lambda: defaultdict(list)), None
    kernel = None
    for row in text.splitlines():
        if match := re.match(r"(?:arch =|code for) (\w+)", row.strip()):
            arch = match[1]
        elif match := re.match(r"Function ?:? ?([\w$.]+):?", row.strip()):
            kernel = match[1]
            found[arch][kernel] = []
        elif kernel and (match := re.search(line, row)):
            found[arch][kernel].append(match[0])
    return {arch: dict(kernels) for arch, kernels in found.items()}


def resources(path):
    """{architecture: {kernel: [its line of resources]}}."""
    return kernels_of(output(tool("cuobjdump"), "--dump-resource-usage", str(path)), r"REG:.*")


def instructions(path, folder, kernels):
    """What COUNTED finds, of the files in which a kernel has a name that `kernels` finds: all would be most of a minute."""
    before = set(folder.iterdir())
    output(tool("cuobjdump"), "--extract-elf", "all", str(path), cwd=folder)
    found = {}
    for file in sorted(set(folder.iterdir()) - before):
        if re.search(kernels, file.read_bytes().decode("ascii", "replace")):
            for arch, of_file in kernels_of(output(tool("cuobjdump"), "--dump-sass", str(file)), COUNTED).items():
                found.setdefault(arch, {}).update(of_file)
    return found


def in_local_memory(usage):
    """Kernels that spill registers or index arrays in local memory, with their lines."""
    return {
        f"{arch} {kernel}: {line}"
        for arch, kernels in usage.items()
        for kernel, lines in kernels.items()
        for line in lines
        if not re.search(r"STACK:0 .*LOCAL:0 ", line) and not any(allowed in kernel for allowed in LOCAL_MEMORY)
    }


def architectures():
    """As the installed module has them, whichever RESNETCORE_CUDA_LIBRARY names."""
    code = "from resnetcore import _core; print(_core.cuda_info()['architectures'])"
    environment = {**os.environ, "RESNETCORE_CUDA_LIBRARY": ""}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout


@pytest.fixture(scope="module")
def module():
    if not MODULE.exists():
        missing("this build has no CUDA module")
    return MODULE


@pytest.fixture(scope="module")
def usage(module):
    return resources(module)


@pytest.fixture(scope="module")
def sass(module, tmp_path_factory):
    return instructions(module, tmp_path_factory.mktemp("code"), "|".join((PRODUCTS, "copied_", *HOPPER)))


@pytest.fixture(scope="module")
def compile_kernel(tmp_path_factory):
    """Compiles a file for sm_90a: its object, and what the compiler said."""
    compiler, folder = tool("nvcc"), tmp_path_factory.mktemp("kernel")

    def build(path):
        target = folder / f"{path.stem}.o"
        command = [compiler, "-std=c++17", "-O3", "-gencode", "arch=compute_90a,code=sm_90a"]
        command += ["-c", str(path), "-o", str(target)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        return target, result.stdout + result.stderr

    return build


def test_one_function_is_exported(module):
    symbols = output(shutil.which("nm") or missing("there is no nm"), "-D", "--defined-only", str(module))
    assert [line.split()[-1] for line in symbols.splitlines()] == ["resnetcore_cuda_module"]


def test_it_links_to_no_part_of_cuda(module):
    needed = output(shutil.which("readelf") or missing("there is no readelf"), "-d", str(module))
    assert set(re.findall(r"NEEDED.*\[(.*)\]", needed)) <= LIBRARIES


def test_nothing_is_left_undefined(module):
    ctypes.CDLL(str(module), mode=os.RTLD_NOW | os.RTLD_LOCAL)


def test_every_kernel_is_there_for_every_gpu(usage):
    *real, virtual = architectures().split()
    assert {"sm_80", "sm_90a"} <= set(real)
    assert virtual == "compute_" + max(real, key=lambda name: int(re.sub(r"\D", "", name))).strip("sm_a")
    assert set(usage) == set(real)
    first, *others = ({re.sub(r"__[0-9a-f]{8}_", "", kernel) for kernel in kernels} for kernels in usage.values())
    assert first and all(other == first for other in others)


def test_ptx_is_there_for_later_gpus(module):
    assert re.search(r"sm_\d+\.ptx", output(tool("cuobjdump"), "--list-ptx", str(module)))


def test_no_kernel_uses_local_memory(usage):
    assert in_local_memory(usage) == set()


def test_products_are_multiplied_by_the_right_unit(sass):
    seen = set()
    for arch, kernels in sass.items():
        for kernel, found in kernels.items():
            if not re.search(PRODUCTS, kernel):
                continue
            kind = next(kind for kind in INSTRUCTIONS if re.search(rf"{kind}(?!x2)", kernel))
            seen.add(kind)
            assert any(one.startswith(INSTRUCTIONS[kind]) for one in found), f"{kernel} for {arch}"
            assert sum(one.startswith("HMMA") for one in found) == MATRIX_INSTRUCTIONS[kind], f"{kernel} for {arch}"
    assert seen == set(INSTRUCTIONS)


def test_kernels_that_copy_ahead_are_those_that_were_written(usage, sass):
    for arch, kernels in sass.items():
        for kind, counts in COPIED.items():
            of_kind = {kernel: found for kernel, found in kernels.items() if kind in kernel}
            assert of_kind
            for kernel, found in of_kind.items():
                seen = tuple(sum(one.startswith(what) for one in found) for what in ("HMMA", "LDSM", "LDGSTS"))
                assert seen == counts, f"{kernel} for {arch}: {seen}"
                registers = int(re.search(r"REG:(\d+)", usage[arch][kernel][0])[1])
                assert registers <= COPIED_REGISTERS[kind[-5:]], f"{kernel} for {arch}: {registers} registers"


def in_order(found):
    """Whether nothing of a kernel's products waits but where it is written."""
    return {name: found.count(name) for name in HOPPER_ORDER} == HOPPER_ORDER


def test_kernels_of_hopper_are_those_that_were_written(usage, sass):
    for kind, written in HOPPER.items():
        kernels = {kernel: found for kernel, found in sass["sm_90a"].items() if kind in kernel}
        assert kernels
        for kernel, found in kernels.items():
            assert sum(bool(re.match(HOPPER_PRODUCT, one)) for one in found) == written.products, kernel
            assert sum(one.startswith(("UTMALDG", "UTMASTG")) for one in found) == written.boxes, kernel
            assert sum(one.startswith("USETMAXREG") for one in found) == written.warpgroups, kernel
            assert in_order(found), f"{kernel}: wgmma is serialised"
            assert re.search(rf"REG:{written.registers}\b", usage["sm_90a"][kernel][0]), usage["sm_90a"][kernel]


def test_blocks_that_meet_see_what_others_wrote(sass):
    for kernel, found in sass["sm_90a"].items():
        if "chain_kernel" not in kernel:
            continue
        first = [found.index(name) if name in found else None for name in MEETING]
        if "fused_chain_kernel" in kernel:
            assert None not in first and first[0] < first[1] < first[2] < found.index("CCTL.IVALL", first[2]), found
            assert found.count("ATOM.E.ADD.STRONG.GPU") == 1
            # Another block's sums are read as memory that changes.
            assert not any(one.startswith("LDG") and "CONSTANT" in one for one in found)
        else:
            assert first[1] is None


# The gates see what they are for.

IN_LOCAL_MEMORY = """
__global__ void indexed(int* out, int n) {
    int values[64];
    for (int i = 0; i < 64; ++i) values[i] = out[i];
    for (int i = 0; i < 64; ++i) out[i] = values[(i * n) % 64];
}
"""

SERIALISED = """
__global__ void __launch_bounds__(128, 1) serialised(float* out, unsigned long long a, unsigned long long b, bool more) {
    float c[4] = {};
    asm volatile("wgmma.fence.sync.aligned;");
    for (int i = 0; i < 4; ++i) {
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "l"(a), "l"(b));
        if (more) c[i] += out[i];
    }
    asm volatile("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;");
    for (int i = 0; i < 4; ++i) out[threadIdx.x + i] = c[i];
}
"""


def test_the_gates_see_local_memory(compile_kernel, tmp_path):
    source = tmp_path / "indexed.cu"
    source.write_text(IN_LOCAL_MEMORY)
    (line,) = in_local_memory(resources(compile_kernel(source)[0]))
    assert line.startswith("sm_90a") and "indexed" in line


def test_the_gates_see_serialised_wgmma(compile_kernel, tmp_path):
    source = tmp_path / "serialised.cu"
    source.write_text(SERIALISED)
    path, said = compile_kernel(source)
    assert re.search(r"\(C75\d\d\)", said)
    found = instructions(path, tmp_path, "serialised")["sm_90a"].popitem()[1]
    assert any(one.startswith("HGMMA") for one in found) and not in_order(found)
