"""PyTorch with oneDNN's products, which it has but takes on its own for half precision alone.

Its float32 products are MKL's, and MKL does not use all of AVX-512 on other makers' processors.
"""

from __future__ import annotations

import torch

from . import Unable, torch_eager


def product(a, weight, bias=None):
    """`a @ weight.T + bias`."""
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, "none", [], "")


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(context, a, weight, bias):
        context.save_for_backward(a, weight)
        return product(a, weight, bias)

    @staticmethod
    def backward(context, d):
        a, weight = context.saved_tensors
        d_a = product(d, weight.t()) if context.needs_input_grad[0] else None
        d_bias = d.sum(0) if context.needs_input_grad[2] else None
        return d_a, product(d.t(), a.t()), d_bias


class OneDnn(torch_eager.InPlace):
    @staticmethod
    def product(a, weight, bias):
        return Linear.apply(a, weight, bias)

    @staticmethod
    def add_product(z, a, weight):
        return z.add_(Linear.apply(a, weight, None))


def build(case, problem, threads):
    if case.precision != "float32" or case.device != "cpu":
        raise Unable("PyTorch's products are oneDNN's in this precision, and cuBLAS' on a GPU")
    if not torch.backends.mkldnn.is_available():
        raise Unable("this PyTorch is without oneDNN")
    return torch_eager.build(case, problem, threads, use=OneDnn)
