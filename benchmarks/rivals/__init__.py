"""One library, one file. Each offers `build(case, problem, threads)`.

It returns `(step, arrays)`. To train, `step()` updates once and returns the loss of before it as a float; to infer, it
returns the logits, on a GPU as an array there that may be complete later. `arrays()` gives what training has changed, by
name, as NumPy arrays shaped as in the problem; it is compared before any time is taken. ImportError means that the library
is not there, `Unable` that it lacks this network.
"""

NAMES = (
    "resnetcore",
    "resnetcore_torch",
    "resnetcore_torch_flat",
    "resnetcore_torch_loss",
    "resnetcore_jax",
    "torch_eager",
    "torch_compile",
    "torch_onednn",
    "jax_jit",
    "onnxruntime",
    "sklearn_mlp",
)
CUDA_NAMES = ("resnetcore", "resnetcore_torch", "torch_eager", "torch_compile", "torch_graph", "torch_addmm")
# Ours inside a framework, no rivals: beside the framework's own ways, which they are compared with once more.
INSIDE = {
    **dict.fromkeys(
        ("resnetcore_torch", "resnetcore_torch_flat", "resnetcore_torch_loss"), ("torch_eager", "torch_compile")
    ),
    "resnetcore_jax": ("jax_jit",),
}
# Sides that do other work: nothing to compare results with, and never among the rivals that a ratio is taken to.
UNCOMPARED = {"sklearn_mlp": "no skips"}
# Sides that their library does not offer: what it could do, by an operator that is not public.
NOT_OFFERED = ("torch_onednn",)


class Unable(Exception):
    """What the library has not."""
