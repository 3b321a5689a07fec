"""The layout, both ways against the safetensors package, and every hostile header: CheckpointError or equal arrays."""

import json
import math
import os
import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from resnetcore import safetensors
from resnetcore._errors import CheckpointError, DTypeError

DTYPES = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)] + [np.dtype(f"f{n}") for n in (2, 4, 8)]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
arrays = st.dictionaries(
    texts.filter(lambda name: name != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    max_size=5,
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape, begin, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "arrays.safetensors"


@quick
@given(arrays, st.dictionaries(texts, texts, max_size=4))
def test_round_trip(path, values, metadata):
    safetensors.write(path, values, metadata)
    got, texts_got = safetensors.read(path)
    assert_same(got, values)
    assert texts_got == metadata


@quick
@given(arrays, st.dictionaries(texts, texts, max_size=4))
def test_the_package_reads_ours_and_we_read_its(path, values, metadata):
    package = pytest.importorskip("safetensors.numpy")
    safetensors.write(path, values, metadata)
    assert_same(package.load_file(path), values)
    if not values:
        return  # the package writes no valid JSON for texts without tensors
    package.save_file(values, path, metadata)
    got, texts_got = safetensors.read(path)
    assert_same(got, values)
    assert texts_got == metadata


def test_equal_arrays_give_equal_bytes_in_any_order(path, tmp_path):
    values = {"b": np.ones(3, np.float32), "a": np.arange(4.0), "c": np.zeros((2, 2), np.int8)}
    safetensors.write(path, values, {"x": "1", "y": "2"})
    other = tmp_path / "other"
    safetensors.write(other, dict(reversed(values.items())), {"y": "2", "x": "1"})
    assert path.read_bytes() == other.read_bytes()


def test_arrays_of_any_layout_are_stored_in_c_order(path):
    base = np.arange(24.0).reshape(4, 6)
    views = {"transposed": base.T, "stepped": base[::2, ::-3], "swapped": base.astype(">f8")}
    views["zero_stride"] = np.broadcast_to(np.float64(3), (2, 3))
    safetensors.write(path, views)
    got, _ = safetensors.read(path)
    for name, view in views.items():
        np.testing.assert_array_equal(got[name], view)
        assert got[name].flags.c_contiguous and got[name].flags.writeable and got[name].dtype.isnative


def test_every_array_lies_aligned_to_its_element(path):
    safetensors.write(path, {"a": np.zeros(3, np.int8), "b": np.zeros(3), "c": np.zeros(1, np.float32)}, {"odd": "x"})
    with safetensors.Reader(path) as reader:
        start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        itemsize = {"I8": 1, "F32": 4, "F64": 8}
        assert all((start + info.begin) % itemsize[info.dtype] == 0 for info in reader.tensors.values())


@pytest.mark.parametrize("values", [{"x": np.zeros(2, complex)}, {"x": np.array(["a"])}, {"x": np.array([None])}])
def test_other_dtypes_are_refused(path, values):
    with pytest.raises(DTypeError, match="'x'"):
        safetensors.write(path, values)
    assert not path.exists()


@pytest.mark.parametrize(
    "values, metadata", [({"__metadata__": np.zeros(1)}, {}), ({"\ud800": np.zeros(1)}, {}), ({}, {"a": "\udfff"})]
)
def test_names_the_header_cannot_hold_are_refused(path, values, metadata):
    path.write_bytes(b"old")
    with pytest.raises(ValueError):
        safetensors.write(path, values, metadata)
    assert path.read_bytes() == b"old"


TWO = {"a": tensor([4], 0, 4), "b": tensor([4], 4, 8)}
HOSTILE = {
    "empty": b"",
    "only a length": (2).to_bytes(8, "little"),
    "half a length": b"\2\0\0",
    "truncated header": file_of(TWO, bytes(8))[:20],
    "truncated data": file_of(TWO, bytes(7)),
    "no data": file_of(TWO),
    "trailing byte": file_of(TWO, bytes(9)),
    "absurd length": b"\xff" * 8 + b"{}",
    "length beyond 2**63": (2**63).to_bytes(8, "little") + b"{}",
    "length one too long": (3).to_bytes(8, "little") + b"{}",
    "length zero": bytes(8),
    "not a header": file_of(b"not a header"),
    "pickle": b"\x80\x04\x95" + bytes(range(64)),
    "array": file_of(b"[]"),
    "number": file_of(b"12"),
    "cut object": file_of(b"{"),
    "key only": file_of(b'{"a"'),
    "unended string": file_of(b'{"a'),
    "trailing comma": file_of(b'{"__metadata__":{},}'),
    "two objects": file_of(b"{}{}"),
    "zero padded": file_of(b"{}\0\0\0"),
    "byte order mark": file_of(b"\xef\xbb\xbf{}"),
    "bad UTF-8": file_of(b'{"\xff\xfe":1}'),
    "overlong UTF-8": file_of(b'{"\xc0\xaf":1}'),
    "UTF-16": file_of('{"a":1}'.encode("utf-16")),
    "lone surrogate": file_of(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "control character in a name": file_of(b'{"a\x01":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "nested lists": file_of(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "nested objects": file_of(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "nested in the shape": file_of(b'{"a":{"shape":' + b"[" * 5000),
    "nested in the texts": file_of(b'{"__metadata__":{"a":' + b"[" * 5000),
    "tensor is null": file_of({"a": None}),
    "tensor is a list": file_of({"a": []}),
    "tensor is empty": file_of({"a": {}}),
    "no shape": file_of({"a": {"dtype": "U8", "data_offsets": [0, 0]}}),
    "further field": file_of({"a": {**tensor([0], 0, 0), "more": 1}}),
    "field twice": file_of(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "unknown dtype": file_of({"a": tensor([4], 0, 4, "X9")}, bytes(4)),
    "dtype is a number": file_of({"a": tensor([4], 0, 4, 8)}, bytes(4)),
    "negative extent": file_of({"a": tensor([-4], 0, 4)}, bytes(4)),
    "two negative extents": file_of({"a": tensor([-2, -2], 0, 4)}, bytes(4)),
    "fractional extent": file_of({"a": tensor([4.0], 0, 4)}, bytes(4)),
    "extent is true": file_of({"a": tensor([True], 0, 1)}, bytes(1)),
    "extent in other digits": file_of('{"a":{"dtype":"U8","shape":[٤],"data_offsets":[0,4]}}'.encode(), bytes(4)),
    "extent with a leading zero": file_of(b'{"a":{"dtype":"U8","shape":[04],"data_offsets":[0,4]}}', bytes(4)),
    "extent of NaN": file_of({"a": tensor([math.nan], 0, 4)}, bytes(4)),
    "extent of a million digits": file_of(b'{"a":{"dtype":"U8","shape":[' + b"9" * 10**6 + b'],"data_offsets":[0,4]}}'),
    "product wraps to 4": file_of({"a": tensor([2**32, 2**32, 4], 0, 4)}, bytes(4)),
    "product wraps to 0": file_of({"a": tensor([2**33, 2**31], 0, 0)}),
    "zero hides an overflow": file_of({"a": tensor([0, 2**62, 2**62], 0, 0)}),
    "too many dimensions": file_of({"a": tensor([1] * 33, 0, 1)}, bytes(1)),
    "a million dimensions": file_of({"a": tensor([1] * 10**6, 0, 1)}, bytes(1)),
    "shape needs more bytes": file_of({"a": tensor([5], 0, 4)}, bytes(4)),
    "shape needs fewer bytes": file_of({"a": tensor([3], 0, 4)}, bytes(4)),
    "dtype needs more bytes": file_of({"a": tensor([4], 0, 4, "F32")}, bytes(4)),
    "one offset": file_of({"a": {**tensor([4], 0, 4), "data_offsets": [4]}}, bytes(4)),
    "three offsets": file_of({"a": {**tensor([4], 0, 4), "data_offsets": [0, 2, 4]}}, bytes(4)),
    "negative offset": file_of({"a": tensor([4], -4, 0)}, bytes(4)),
    "reversed offsets": file_of({"a": tensor([4], 4, 0)}, bytes(4)),
    "offset beyond the file": file_of({"a": tensor([4], 2**62, 2**62 + 4)}, bytes(4)),
    "overlap": file_of({"a": tensor([4], 0, 4), "b": tensor([4], 2, 6)}, bytes(6)),
    "same bytes twice": file_of({"a": tensor([4], 0, 4), "b": tensor([4], 0, 4)}, bytes(4)),
    "hole": file_of({"a": tensor([4], 0, 4), "b": tensor([4], 5, 9)}, bytes(9)),
    "hole in front": file_of({"a": tensor([4], 1, 5)}, bytes(5)),
    "empty tensor inside another": file_of({"a": tensor([4], 0, 4), "b": tensor([0], 2, 2)}, bytes(4)),
    "name twice": file_of(b"{" + b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' * 2 + b'"__metadata__":{}}'),
    "texts twice": file_of(b'{"__metadata__":{},"__metadata__":{}}'),
    "text twice": file_of(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "text is a number": file_of({"__metadata__": {"a": 1}}),
    "texts are a list": file_of({"__metadata__": []}),
    "texts are a tensor": file_of({"__metadata__": tensor([0], 0, 0)}),
    "a million blanks": file_of(b'{"a":{"dtype":"U8","shape":[' + b" " * 10**6 + b"x]}}"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_checkpoint_errors(path, kind):
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError, match=r"arrays\.safetensors"):
        safetensors.read(path)


def test_a_header_above_100_mb_is_refused_unread(path):
    with open(path, "wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{")
        file.truncate(200_000_000)
    with pytest.raises(CheckpointError, match="at most 100000000 bytes, got 100000001"):
        safetensors.read(path)


def test_nothing_is_allocated_for_a_shape_without_its_bytes(path):
    size = 2**50
    path.write_bytes(file_of({"a": tensor([size], 0, size)}, bytes(8)))
    with pytest.raises(CheckpointError, match="truncated"):
        safetensors.read(path)


def test_100_000_tiny_tensors_are_read(path):
    count = 100_000
    header = {str(i): tensor([1], i, i + 1) for i in range(count)}
    path.write_bytes(file_of(header, bytes(count)))
    assert len(safetensors.read(path)[0]) == count


def test_blanks_and_any_order_of_fields_are_read(path):
    text = b' { "a" : { "data_offsets" : [ 0 , 2 ] , "shape":[ 2 ],\t"dtype" : "U8"\n}, "__metadata__":{ "k":"v" } } '
    path.write_bytes(file_of(text, b"\1\2"))
    got, metadata = safetensors.read(path)
    assert got["a"].tolist() == [1, 2] and metadata == {"k": "v"}


def test_a_file_that_shrinks_while_read_is_an_error(path):
    safetensors.write(path, {"a": np.zeros(1000)})
    with safetensors.Reader(path) as reader:
        os.truncate(path, 4000)
        with pytest.raises(CheckpointError, match="shorter"):
            reader.read()


def test_what_was_read_does_not_change_with_the_file(path):
    safetensors.write(path, {"a": np.ones(1000)})
    got, _ = safetensors.read(path)
    os.truncate(path, 8)
    assert (got["a"] == 1).all()


def test_what_is_not_a_regular_file_is_an_os_error_at_once(tmp_path):
    fifo, unix = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(unix))
        for path in (fifo, unix, tmp_path, "/dev/null", tmp_path / "missing", tmp_path / "no" / "folder"):
            with pytest.raises(OSError):
                safetensors.read(path)
    with pytest.raises(IsADirectoryError):
        safetensors.read(tmp_path)


def sample_file(path):
    rng = np.random.default_rng(0)
    values = {"1.weight": rng.random((3, 4), np.float32), "1.bias": rng.random(4), "step": np.array([7])}
    safetensors.write(path, values, {"topology": '{"layers": [1, 2]}'})
    return path.read_bytes(), values


spoilers = st.binary(max_size=5) | st.sampled_from([b'"', b"{", b"]", b"-", b"9" * 9, b","])


@quick
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_well_formed(path, data):
    content, _ = sample_file(path)
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        cut = data.draw(st.integers(0, 5))
        damaged[at : at + cut] = data.draw(spoilers)
    path.write_bytes(damaged)
    try:
        got, metadata = safetensors.read(path)
    except CheckpointError:
        return
    assert sum(array.nbytes for array in got.values()) <= len(damaged)
    safetensors.write(path, got, metadata)
    assert_same(safetensors.read(path)[0], got)


def test_every_truncation_is_an_error(path):
    content, _ = sample_file(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            safetensors.read(path)


def test_every_flipped_bit_is_an_error_or_a_readable_file(path):
    content, values = sample_file(path)
    for at in range(len(content)):
        for bit in (0, 3, 7):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                got, _ = safetensors.read(path)
            except CheckpointError:
                continue
            assert len(got) == len(values)
