"""What XLA and the handlers of `csrc/xla` agree on: the layout of its structs, and what a handler refuses."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
import resnetcore as rc  # noqa: E402
from resnetcore._topology_text import Topology  # noqa: E402
from resnetcore.jax import stack_primitives  # noqa: E402, F401  # registers the handlers

CSRC = Path(__file__).parent.parent / "csrc"
HEAD = "size:struct_size extensions:extension_start"
# Ours, theirs, and the fields' names in both.
STRUCTS = [
    ("Extension", "XLA_FFI_Extension_Base", "size:struct_size type next"),
    ("Version", "XLA_FFI_Api_Version", f"{HEAD} major:major_version minor:minor_version"),
    ("ErrorArguments", "XLA_FFI_Error_Create_Args", f"{HEAD} message code:errc"),
    ("Api", "XLA_FFI_Api", f"{HEAD} version:api_version internal:internal_api create_error:XLA_FFI_Error_Create"),
    ("Buffer", "XLA_FFI_Buffer", f"{HEAD} type:dtype data rank shape:dims"),
    ("Values", "XLA_FFI_Args", f"{HEAD} count:size kinds:types values:args"),
    ("Values", "XLA_FFI_Rets", f"{HEAD} count:size kinds:types values:rets"),
    ("Text", "XLA_FFI_ByteSpan", "data:ptr size:len"),
    ("Scalar", "XLA_FFI_Scalar", "type:dtype value"),
    ("Attributes", "XLA_FFI_Attrs", f"{HEAD} count:size kinds:types names values:attrs"),
    ("CallFrame", "XLA_FFI_CallFrame", f"{HEAD} api context:ctx stage arguments:args results:rets attributes:attrs"),
    ("Metadata", "XLA_FFI_Metadata", "size:struct_size version:api_version traits"),
    ("MetadataExtension", "XLA_FFI_Metadata_Extension", "base:extension_base metadata"),
]
VALUES = {
    "buffer_kind": "XLA_FFI_ArgType_BUFFER",
    "scalar_kind": "XLA_FFI_AttrType_SCALAR",
    "string_kind": "XLA_FFI_AttrType_STRING",
    "int64_type": "XLA_FFI_DataType_S64",
    "uint8_type": "XLA_FFI_DataType_U8",
    "uint32_type": "XLA_FFI_DataType_U32",
    "float32_type": "XLA_FFI_DataType_F32",
    "float64_type": "XLA_FFI_DataType_F64",
    "bfloat16_type": "XLA_FFI_DataType_BF16",
    "invalid_argument": "XLA_FFI_Error_Code_INVALID_ARGUMENT",
    "resource_exhausted": "XLA_FFI_Error_Code_RESOURCE_EXHAUSTED",
    "metadata_extension": "XLA_FFI_Extension_Metadata",
    "major_version": "XLA_FFI_API_MAJOR",
}


def claims():
    yield "int(buffer_kind) == int(XLA_FFI_RetType_BUFFER)"
    yield "last_minor_version >= XLA_FFI_API_MINOR"
    for ours, theirs in VALUES.items():
        yield f"int({ours}) == int({theirs})"
    for ours, theirs, fields in STRUCTS:
        for field in fields.split():
            a, _, b = field.partition(":")
            b = b or a
            yield f"offsetof({ours}, {a}) == offsetof({theirs}, {b})"
            # Their structs hold each other, and newer ones may have grown.
            yield f"sizeof({ours}::{a}) <= sizeof({theirs}::{b})"


def test_the_structs_are_laid_out_as_the_installed_jax_has_them(tmp_path):
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    asserts = "\n".join(f"static_assert({claim});" for claim in claims())
    source = tmp_path / "layout.cpp"
    source.write_text(
        f'#include "xla/ffi/api/c_api.h"\n#include "{CSRC / "xla" / "ffi.h"}"\nusing namespace resnetcore::xla;\n{asserts}\n'
    )
    command = [*compiler.split(), "-std=c++17", "-fsyntax-only", "-Wno-invalid-offsetof", "-I", jax.ffi.include_dir()]
    result = subprocess.run([*command, source], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


A, W, B = np.ones((5, 3), "float32"), np.ones((3, 6), "float32"), np.ones(6, "float32")
COUNTS = {"sources": np.int64(1), "identity": np.int64(0), "activation": "relu"}


def call(*given, out=(5, 6), dtype="float32", target="forward", **changes):
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in ([out] if isinstance(out, tuple) else out)]
    attributes = {name: value for name, value in {**COUNTS, **changes}.items() if value is not None}
    block = jax.ffi.ffi_call(f"resnetcore_residual_{target}", results)
    return jax.block_until_ready(jax.jit(lambda *given: block(*given, **attributes))(*given))


def test_a_call_that_fits():
    assert np.array_equal(call(A, W, B)[0], np.full((5, 6), 4))


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ((A,), {}, "argument 1 is missing"),
        ((A, W, B, B), {}, "argument 3 is one too many"),
        ((A, W.T), {}, "weights do not fit"),
        ((A, W, B[:5]), {}, "argument 2 is of another shape"),
        ((A, W, A), {}, "argument 2 is of another shape"),
        ((B, W), {}, "argument 0 must have 2 dimensions"),
        ((A, W.astype("int32")), {}, "argument 1 is of another dtype"),
        ((A.astype("int32"), W), {}, "must be float32, float64 or bfloat16"),
        ((A, A[:4], W, W), {"sources": np.int64(2)}, "sources differ in their rows"),
        ((A, W), {"sources": np.int64(0)}, "at least one source"),
        ((A, W), {"sources": np.int64(2**62)}, "argument 2 is missing|must|fit|differ"),
        ((A, W), {"identity": np.int64(-1)}, "at least one source"),
        ((A, W), {"sources": None}, "no attribute sources"),
        ((A, W), {"sources": np.int32(1)}, "attribute sources must be an int64"),
        ((A, W), {"activation": "swish"}, "unknown activation 'swish'"),
        ((A, W), {"out": (5, 5)}, "result 0 is of another shape"),
        ((A, W), {"dtype": "int32"}, "result 0 is of another dtype"),
        ((A, W), {"out": [(5, 6), (5, 6)]}, "result 1 is one too many"),
        ((A, A, A, W), {"target": "backward", "source_gradients": np.int64(1)}, "gradient does not fit"),
    ],
)
def test_what_does_not_fit_is_an_error_of_xla(given, changes, message):
    operation = f"residual_{changes.get('target', 'forward')}"
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT: .*{operation}: .*({message})"):
        call(*given, **changes)


NET = rc.Network(3, [rc.Layer(6, activation="tanh")])
SEED, TOPOLOGY = np.zeros(2, "uint32"), Topology.to_json(NET)
OUT = jax.ShapeDtypeStruct((5, 6), "float32")
W_AND_B = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((3, 6), (6,))]
WHOLE, ROW = rc._core.XlaStack(TOPOLOGY, False, False).tape_bytes
TAPE = jax.ShapeDtypeStruct((WHOLE + 5 * ROW,), "uint8")


def call_stack(target, given, results, **changes):
    layout = rc._core.tape_layout()
    attributes = {"topology": TOPOLOGY, "training": 0, "input_gradient": 0, "tape_layout": layout, **changes}
    stack = jax.ffi.ffi_call(f"resnetcore_residual_stack_{target}", results)
    numbers = {name: np.int64(v) if isinstance(v, int) else v for name, v in attributes.items() if v is not None}
    return jax.block_until_ready(jax.jit(lambda *given: stack(*given, **numbers))(*given))


@pytest.mark.parametrize(
    ("given", "results", "changes", "message"),
    [
        ((A, SEED, W), [OUT], {}, "argument 3 is missing"),
        ((A, SEED, W, B, B), [OUT], {}, "argument 4 is one too many"),
        ((A, SEED, W.T, B), [OUT], {}, "argument 2 is of another shape"),
        ((A, SEED.astype("int32"), W, B), [OUT], {}, "argument 1 is of another dtype"),
        ((A.astype("int32"), SEED, W, B), [OUT], {}, "argument 0 is of another dtype"),
        ((W, SEED, W, B), [OUT], {}, "x must have 3 columns, got 6"),
        ((A, SEED, W, B), [OUT, OUT], {}, "result 1 is one too many"),
        ((A, SEED, W, B), [OUT], {"taped": 1}, "result 1 is missing"),
        ((A, SEED, W, B), [OUT, jax.ShapeDtypeStruct((9,), "uint8")], {"taped": 1}, "result 1 is of another shape"),
        ((A, SEED, W, B), [OUT], {"topology": "{}"}, "the topology"),
        ((A, SEED, W, B), [OUT], {"topology": TOPOLOGY.replace("[{", '[{"skips":', 1)}, "the topology|must"),
        ((A, SEED, W, B), [OUT], {"training": None}, "no attribute training"),
        ((A, SEED, W, B), [OUT, TAPE], {"taped": 1, "tape_layout": None}, "layout 0, here .*; export it again"),
    ],
)
def test_what_does_not_fit_a_stack_is_an_error_of_xla(given, results, changes, message):
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT: .*residual_stack_forward: .*({message})"):
        call_stack("forward", given, results, **{"taped": 0, **changes})


def test_what_does_not_fit_a_stacks_gradient_is_an_error_of_xla():
    out, tape = call_stack("forward", (A, SEED, W, B), [OUT, TAPE], taped=1)
    for given, message in [
        ((out, tape[:-1], A, SEED, W, B), "argument 1 is of another shape"),
        ((out[:4], tape, A, SEED, W, B), "argument 1 is of another shape"),
        ((out[:4], tape[: WHOLE + 4 * ROW], A, SEED, W, B), "the gradient does not fit the stack"),
        ((out[:, :5], tape, A, SEED, W, B), "the gradient does not fit the stack"),
    ]:
        with pytest.raises(Exception, match=f"INVALID_ARGUMENT: .*residual_stack_backward: .*{message}"):
            call_stack("backward", given, W_AND_B)


def test_a_tape_may_come_back_to_any_address():
    out, tape = call_stack("forward", (A, SEED, W, B), [OUT, TAPE], taped=1)
    expected = call_stack("backward", (out, tape, A, SEED, W, B), W_AND_B)
    memory = np.zeros(tape.size + 128, "uint8")
    for offset in (16, 32, 33):
        start = -memory.ctypes.data % 64 + offset
        elsewhere = memory[start : start + tape.size]
        elsewhere[:] = tape
        for a, b in zip(call_stack("backward", (out, elsewhere, A, SEED, W, B), W_AND_B), expected, strict=True):
            assert (a == b).all()
