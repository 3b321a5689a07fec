"""Sums stay in registers: the innermost loops of the products forward and backward, and of weight gradients, write
nothing to the stack, for any number of rows.

A change far from such a loop, in what is done with its sums, can move them to memory, where a product takes three times
as long and every result is right. So the library's own code is read: where it has its symbols, as ./test builds it.
"""

import re
import shutil
import subprocess
from functools import cache

import pytest

from resnetcore import _core

# By instruction set: rows of a register tile (RC_TILE_ROWS), its registers, and what multiplies, by element type.
TILES = {
    "avx2": (6, "ymm", {"float": "vfmadd"}),
    "avx512": (14, "zmm", {"float": "vfmadd"}),
    "avx512_bf16": (14, "zmm", {"bfloat16": "vdpbf16ps"}),
}
EPILOGUES = ("ForwardEpilogue", "BackwardDataEpilogue")
ACTIVATIONS = ("Relu", "Identity")


def shown(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def functions():
    """{name: (address, size)} of the library's functions that sum register tiles."""
    if not (shutil.which("nm") and shutil.which("objdump")):
        pytest.skip("there are no binutils")
    found = {}
    for line in shown("nm", "-C", "-S", "--defined-only", _core.__file__).splitlines():
        match = re.fullmatch(
            r"([0-9a-f]+) ([0-9a-f]+) \w (.*(?:PanelSums<.*::run|::add_rows|::product_into)<[^()]*>)\(.*", line
        )
        if match:
            name = re.sub(r"resnetcore::|void ", "", match[3].replace("(anonymous namespace)::", ""))
            found[name] = int(match[1], 16), int(match[2], 16)
    if not found:
        pytest.skip("the library has no symbols: -C install.strip=false leaves them there")
    return found


def innermost_loop(name, product, count):
    """The instructions of the shortest loop that has at least so many products."""
    address, size = functions()[name]
    text = shown(
        "objdump", "-d", "--no-show-raw-insn", f"--start-address={address}", f"--stop-address={address + size}",
        _core.__file__,
    )  # fmt: skip
    code = [(int(at, 16), what) for at, what in re.findall(r"^\s*([0-9a-f]+):\t(.*)$", text, re.M)]
    loops = []
    for last, (at, what) in enumerate(code):
        jump = re.match(r"j\w+\s+([0-9a-f]+)", what)
        if jump and address <= int(jump[1], 16) <= at:
            body = [what for place, what in code[: last + 1] if place >= int(jump[1], 16)]
            if sum(product in instruction for instruction in body) >= count:
                loops.append(body)
    assert loops, f"no loop of {name} has {count} products"
    return min(loops, key=len)


def written_in(name, product, rows, register):
    """The vectors that every turn of the innermost loop writes to the stack."""
    body = innermost_loop(name, product, 2 * rows)
    return [line for line in body if re.search(rf"mov\w+\s+%{register}\d+,.*\(%r[sb]p", line)]


def fetched_in(name, product, rows):
    """What every turn of the innermost loop reads of the stack."""
    return [line for line in innermost_loop(name, product, 2 * rows) if re.search(r"\(%r[sb]p", line)]


def skip_without(isa):
    if not any(known.startswith(f"{isa}::") for known in functions()):
        pytest.skip(f"this build has no {isa}")


@pytest.mark.parametrize(
    ("isa", "element", "epilogue", "activation"),
    [(i, e, p, a) for i, (_, _, elements) in TILES.items() for e in elements for p in EPILOGUES for a in ACTIVATIONS],
)
def test_sums_stay_in_registers(isa, element, epilogue, activation):
    most, register, products = TILES[isa]
    skip_without(isa)
    for rows in range(2, most + 1):
        name = f"{isa}::PanelSums<{element}, {isa}::{epilogue}<{element}, {activation}> >::run<{rows}>"
        assert name in functions()
        assert not written_in(name, products[element], rows, register)
        # Nor do addresses come from there, where there is a pointer for every five rows.
        assert register == "ymm" or not fetched_in(name, products[element], rows)


# Sums that epilogues find in memory. Of seven rows of bfloat16x2 two sums are in memory throughout (GCC 12).
@pytest.mark.parametrize(
    ("isa", "element", "product"),
    [("avx2", "double", "vfmadd"), ("avx512", "double", "vfmadd"), ("avx512_bf16", "bfloat16x2", "vdpbf16ps")],
)
def test_sums_on_their_way_to_memory_do(isa, element, product):
    most, register, _ = TILES[isa]
    skip_without(isa)
    for rows in range(2, most + 1):
        if (element, rows) != ("bfloat16x2", 7):
            name = f"{isa}::product_into<{element}, {rows}, 2>"
            assert name in functions()
            assert not written_in(name, product, rows, register)


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
@pytest.mark.parametrize("sums", ["WidenedTerms::add_rows<{rows}, 2>", "add_rows<bfloat16, {rows}, 2>"])
def test_sums_of_bfloat16_made_floats_do(isa, sums):
    most, register, _ = TILES[isa]
    skip_without(isa)
    for rows in range(2, most + 1):
        name = f"{isa}::{sums.format(rows=rows)}"
        assert name in functions()
        assert not written_in(name, "vfmadd", rows, register)
