"""resnetcore's kernels, networks and training step.

Begun by `pybind11-stubgen resnetcore._core`; what pybind11 cannot say is written by hand: the arrays behind its
`object`, `dict` and `tuple`. tests/test_stubs.py holds every name, parameter and default against the compiled module.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# float32 or float64, as the network was made or as the function's suffix says; bf16 is of bfloat16_dtype().
_Array = NDArray[Any]

class DeviceArray:
    """An array in a GPU's memory, as networks there give them.

    Other libraries take it without a copy, by DLPack (`torch.from_dlpack`, `cupy.from_dlpack`, `jax.dlpack.from_dlpack`)
    or by `__cuda_array_interface__`. Whoever takes it finds what is in it: a stream that DLPack is told waits for what is
    still being computed, and so does the CPU in `numpy()`, where it is told of none (−1), and by `__cuda_array_interface__`. Of a
    call that was given a stream, it comes first in that stream's order.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def device(self) -> str:
        """As `Network.device`: "cuda:0"."""

    def numpy(self) -> _Array:
        """A copy in the CPU's memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice) -> DeviceArray: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

_Rows = _Array | DeviceArray

class Network:
    """A checked topology and its arrays; see resnetcore.Network."""

    def __init__(
        self,
        inputs: int,
        layers: Sequence[dict[str, Any]],
        seed: int = 0,
        dtype: str = "float32",
        matmul_precision: str = "highest",
        device: str = "cpu",
    ) -> None: ...
    @property
    def device(self) -> str:
        """Its full name: "cpu", "cuda:0"."""

    @property
    def dtype(self) -> str: ...
    @property
    def inputs(self) -> int: ...
    @property
    def layers(self) -> list[dict[str, Any]]: ...
    @property
    def matmul_precision(self) -> str: ...
    @property
    def operands(self) -> str:
        """What products multiply."""

    @property
    def outputs(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def activations(self, x: _Rows, training: bool = False) -> dict[str, _Array]:
        """Layer outputs by number, and stored normal paths."""

    def buffer_names(self) -> list[str]: ...
    def clone(self, device: str | None = None) -> Network:
        """A network with the same arrays that shares nothing with this one, on its or on another device."""

    def evaluate(self, x: _Rows, y: _Rows, loss: dict[str, Any]) -> tuple[float, float, _Array]:
        """(loss, outputs) in inference mode."""

    def get(self, names: Sequence[str], on_device: bool = False) -> dict[str, Any]:
        """{name: a copy of that parameter or buffer}, all of one moment; in the GPU's memory where asked for."""

    def gradients(
        self, x: _Rows, y: _Rows, loss: dict[str, Any], step: int = 0, operation: str = "gradients"
    ) -> tuple[float, dict[str, _Array], Any]:
        """(loss, {name: gradient}, d_x); nothing is updated."""

    def parameter_names(self) -> list[str]: ...
    def plan(self, training: bool = False, batch: int = 128) -> str:
        """What runs in which order, on which memory, as text."""

    def step_shape(self, batch: int) -> dict[str, Any]:
        """What the way to do a step on so many rows is chosen and remembered by."""

    def takes(self, x: Any) -> bool:
        """Whether `predict` takes it without a conversion or a further check."""

    def predict(self, x: _Rows, memory: int = 536870912) -> Any:
        """Outputs in inference mode, (n, outputs).

        A GPU's rows are predicted so many at a time that their activations take no more memory than this, in bytes.
        """

    def set(self, values: dict[str, _Array]) -> None:
        """Several parameters or buffers, all or nothing."""

class Trainer:
    """Trains a Network in place; see resnetcore.Trainer."""

    def __init__(
        self,
        network: Network,
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        seed: int = 0,
        clip_norm: float | None = None,
        accumulate: int = 1,
    ) -> None: ...
    @property
    def last_gradient_norm(self) -> float: ...
    @property
    def last_weight(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def steps_begun(self) -> int: ...
    @property
    def ahead(self) -> int:
        """How many steps it pays to have begun while an earlier one is finished."""
    def set_state(self, values: dict[str, _Array]) -> None:
        """What state() gave, all or nothing."""

    def state(self) -> dict[str, _Array]:
        """The optimizer's arrays and step count."""

    def takes(self, x: Any, y: Any) -> bool:
        """Whether `step` takes these two without a conversion or a further check."""

    def step(self, x: _Rows, y: _Rows, lr: float, sample_weight: _Array | None = None) -> float:
        """One update; the loss of before it."""

    def begin_step(self, x: _Rows, y: _Rows, lr: float, sample_weight: _Array | None = None) -> None:
        """The same without waiting for it. An earlier step's error that was met with meanwhile is raised here, too."""

    def begin_rows(
        self, x: _Rows, y: _Array, rows: NDArray[np.int64], lr: float, sample_weight: _Array | None = None
    ) -> None:
        """The same on the chosen rows of x and y."""

    def finish_step(self) -> float:
        """Waits for the first step that was begun and not finished; its loss. After an error, none is begun."""

class Vjp:
    """A stack of layers for a framework with gradients of its own; parameters come with each call, in order."""

    def __init__(
        self,
        inputs: int,
        layers: list[dict[str, Any]],
        dtype: str,
        training: bool,
        input_gradient: bool,
        device: str = "cpu",
        flat: bool = False,
    ) -> None: ...
    @property
    def outputs(self) -> int:
        """Width of the last layer."""
    @property
    def parameters(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """Name, shape, (out, in) for a matrix, and whether it is trained. Where it is flat, all that is trained is one
        array, which comes first.
        """
    def tape_bytes(self, rows: int) -> int:
        """What a forward pass leaves for backward."""
    # Arrays are NumPy's, or of a type that has DLPack's C exchange API; on a GPU they are DeviceArrays.
    def forward(
        self, x: Any, values: list[Any], seed: int, tape: Any, out: Any, carried: list[Any], stream: int | None = None
    ) -> None:
        """Fills `tape`, `out` and, in training, `carried`: the running statistics, in order."""
    def backward(
        self,
        x: Any,
        values: list[Any],
        seed: int,
        tape: Any,
        d_out: Any,
        d_x: Any,
        gradients: list[Any],
        stream: int | None = None,
    ) -> None:
        """Fills `gradients`, of what is trained, in order, and `d_x`, where it was asked for."""
    def loss(
        self,
        x: Any,
        values: list[Any],
        seed: int,
        loss: dict[str, Any],
        y: Any,
        sample_weight: Any,
        out: Any,
        d_x: Any,
        gradients: list[Any],
        carried: list[Any],
    ) -> None:
        """Fills `out`, one number, with the mean loss of a training pass on the CPU, and what both others fill but for
        the outputs.
        """

def adopt_openmp_of(library: str) -> bool:
    """Hosts' kernels run on the OpenMP that this loaded library is linked to; False where there is none."""

def activations() -> list[str]:
    """Names of the activations."""

def bfloat16_dtype() -> np.dtype[np.void]:
    """The dtype that stands for bfloat16, which NumPy lacks."""

def remember_path(shape: dict[str, Any], path: str) -> None:
    """Steps of this shape are done by these kernels of its device from now on."""

def remembered_way(shape: dict[str, Any]) -> tuple[Any, ...] | None:
    """What was remembered of steps of this shape, or None."""

def forget_way(shape: dict[str, Any]) -> None:
    """Steps of this shape are done as the cost model, or the device, says again."""

def device_paths(name: str) -> list[tuple[str, bool]]:
    """(name, whether its tests have passed on a GPU) of the kernels that a device's steps in bfloat16 may take."""

def remember_choice(shape: dict[str, Any], strategy: str, threads: int) -> None:
    """Steps of this shape are done so from now on."""

def available_precision(asked: str) -> str:
    """The matmul precision that float32 networks have here where this one is asked for."""

def build_info() -> dict[str, Any]:
    """Version, compiler and build type."""

def cache_info() -> dict[str, int]:
    """Bytes of the caches that the cost models reckon with."""

def check_device(name: str) -> str:
    """The device's full name; raises DeviceError, with the reason, where it cannot be had."""

def cuda_info() -> dict[str, Any]:
    """What the CUDA module is built for, the driver and its GPUs, and why there are none."""

def device_array(value: Any, what: str, home: str = "cuda", written: bool = False) -> DeviceArray:
    """The memory of any array on a GPU that speaks DLPack or has a __cuda_array_interface__."""

def from_dlpack(value: Any, what: str, widen: bool = True, written: bool = False) -> _Array:
    """A NumPy array of the memory of any CPU array that speaks DLPack; bfloat16 becomes float32 where widened."""

def get_num_threads() -> int:
    """Threads that kernels run on."""

def get_strategy() -> str:
    """How steps take their weight gradients: auto, by_layer or by_tile."""

def host_openmp() -> str:
    """The file of the OpenMP that was adopted, or nothing."""

def isa_info() -> dict[str, Any]:
    """Instruction sets: in use, compiled, supported here."""

def losses() -> list[str]:
    """Names of the losses."""

def norm_eps() -> float:
    """What a batch norm adds to a variance."""

def num_threads_origin() -> str:
    """Where the number of threads came from."""

def random_permutation(n: int, seed: int, step: int = 0) -> NDArray[np.int64]:
    """A permutation of 0 … n−1, the same on every machine."""

def residual_forward_f32(
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    out: _Array,
    device: str = "cpu",
) -> None: ...
def residual_forward_f64(
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    out: _Array,
    device: str = "cpu",
) -> None: ...
def residual_forward_bf16(
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    out: _Array,
    device: str = "cpu",
) -> None: ...
def residual_backward_f32(
    grad: _Array,
    a: _Array,
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    device: str = "cpu",
) -> tuple[list[_Array], list[_Array], _Array | None, _Array]: ...
def residual_backward_f64(
    grad: _Array,
    a: _Array,
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    device: str = "cpu",
) -> tuple[list[_Array], list[_Array], _Array | None, _Array]: ...
def residual_backward_bf16(
    grad: _Array,
    a: _Array,
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    device: str = "cpu",
) -> tuple[list[_Array], list[_Array], _Array | None, _Array]: ...
def residual_update_f32(
    grad: _Array,
    a: _Array,
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    lr: float,
    device: str = "cpu",
) -> tuple[list[_Array], _Array]: ...
def residual_update_f64(
    grad: _Array,
    a: _Array,
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    lr: float,
    device: str = "cpu",
) -> tuple[list[_Array], _Array]: ...
def residual_update_bf16(
    grad: _Array,
    a: _Array,
    sources: list[_Array],
    weights: list[_Array],
    bias: _Array | None,
    identity: list[_Array],
    activation: str,
    lr: float,
    device: str = "cpu",
) -> tuple[list[_Array], _Array]: ...
def residual_forward_on_gpu_f32(
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    out: DeviceArray,
    stream: int | None,
) -> None: ...
def residual_backward_on_gpu_f32(
    grad: DeviceArray,
    a: DeviceArray,
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    d_sources: list[DeviceArray],
    d_weights: list[DeviceArray],
    d_bias: DeviceArray | None,
    deltas: list[DeviceArray],
    stream: int | None,
) -> None: ...
def residual_update_on_gpu_f32(
    grad: DeviceArray,
    a: DeviceArray,
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    d_sources: list[DeviceArray],
    deltas: list[DeviceArray],
    lr: float,
    stream: int | None,
) -> None: ...
def residual_forward_on_gpu_f64(
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    out: DeviceArray,
    stream: int | None,
) -> None: ...
def residual_backward_on_gpu_f64(
    grad: DeviceArray,
    a: DeviceArray,
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    d_sources: list[DeviceArray],
    d_weights: list[DeviceArray],
    d_bias: DeviceArray | None,
    deltas: list[DeviceArray],
    stream: int | None,
) -> None: ...
def residual_update_on_gpu_f64(
    grad: DeviceArray,
    a: DeviceArray,
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    d_sources: list[DeviceArray],
    deltas: list[DeviceArray],
    lr: float,
    stream: int | None,
) -> None: ...
def residual_forward_on_gpu_bf16(
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    out: DeviceArray,
    stream: int | None,
) -> None: ...
def residual_backward_on_gpu_bf16(
    grad: DeviceArray,
    a: DeviceArray,
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    d_sources: list[DeviceArray],
    d_weights: list[DeviceArray],
    d_bias: DeviceArray | None,
    deltas: list[DeviceArray],
    stream: int | None,
) -> None: ...
def residual_update_on_gpu_bf16(
    grad: DeviceArray,
    a: DeviceArray,
    sources: list[DeviceArray],
    weights: list[DeviceArray],
    bias: DeviceArray | None,
    identity: list[DeviceArray],
    activation: str,
    d_sources: list[DeviceArray],
    deltas: list[DeviceArray],
    lr: float,
    stream: int | None,
) -> None: ...
def set_num_threads(threads: int) -> None:
    """Sets the threads that kernels run on, 1 to 1024."""

def set_strategy(name: str) -> None:
    """Forces it for every later step; both give the same bits."""

def use_host_threads(count: int) -> int:
    """Kernels called by this thread use at most so many from now on, of the OpenMP that was adopted (0: no host)."""

class XlaStack:
    """What the handlers of a stack run, named by its topology's text; as long as this lives, it is made once."""

    def __init__(self, topology: str, training: bool, input_gradient: bool) -> None: ...
    @property
    def outputs(self) -> int:
        """Width of the last layer."""
    @property
    def parameters(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """Name, shape, (in, out) for a matrix, and whether it is trained."""
    @property
    def tape_bytes(self) -> tuple[int, int]:
        """Of a tape: so many, and so many for each row."""

def are_dense(tensors: Sequence[Any]) -> bool:
    """Whether the CPU's kernels can read all of these as they lie, and their types let them be looked at (DLPack's C
    exchange API).
    """

def tape_layout() -> int:
    """Number of the layout of a stack's tape; another one with each change."""

def xla_handlers() -> dict[str, Any]:
    """Handlers for XLA's foreign function interface on the CPU, by target name."""

def array_at(
    device: str, address: int, shape: Sequence[int], strides: Sequence[int], dtype: np.dtype[Any], owner: Any
) -> DeviceArray:
    """Memory of a GPU that `owner` keeps; strides in elements. Work on it is not ordered by this."""

def layout_of(array: DeviceArray) -> _Array:
    """A NumPy array of the same addresses: its elements are not the CPU's to read."""

def wait_for_stream(device: str, stream: int | None, operation: str) -> None:
    """Work on the device comes after what the stream, a cudaStream_t's address or None, was given so far."""

def zeros_on(device: str, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray:
    """Zeros in a GPU's memory, in C order."""

def to_device(array: _Array, device: str) -> DeviceArray:
    """A copy of a NumPy array in a GPU's memory."""
