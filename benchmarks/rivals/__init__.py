"""One library, one file. Each offers `build(shape, parameters, x, labels, threads)`.

It returns `(step, weights)`: `step()` trains once and returns the loss of before it as a float; `weights()` gives the first
layer's weight, (in, out), to be compared before any time is taken. ImportError means that the library is not there.
"""

NAMES = ("resnetcore", "torch_eager", "torch_compile", "jax_jit")
