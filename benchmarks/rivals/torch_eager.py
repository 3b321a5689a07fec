"""PyTorch at its best on a CPU: fused optimizers, operations in place, inference mode, norms folded for inference."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..networks import EPS, MOMENTUM, OPTIMIZERS, forward, is_trained

RULES = {"sgd": torch.optim.SGD, "momentum": torch.optim.SGD, "adamw": torch.optim.AdamW}


class InPlace:
    """Nothing here is needed backward before it is overwritten, which autograd checks. Weights are (out, in)."""

    product = staticmethod(functional.linear)
    add = staticmethod(torch.Tensor.add_)
    relu = staticmethod(torch.relu_)

    @staticmethod
    def add_product(z, a, weight):
        if weight.dtype != z.dtype:  # autocast casts what a product reads, but not for one that adds in place
            return z.add_(functional.linear(a, weight))
        return z.addmm_(a, weight.t())

    @staticmethod
    def norm(z, arrays, names):
        weight, bias, mean, var = (arrays[name] for name in names)
        return functional.batch_norm(z, mean, var, weight, bias, training=True, momentum=MOMENTUM, eps=EPS)


class Twin(torch.nn.Module):
    """A module for `torch.compile`'s sake; its dictionary is for speed, a ParameterDict is slow to read."""

    def __init__(self, problem, training, use):
        super().__init__()
        self.layers, self.use, self.tensors = problem.layers, use, {}
        for name, array in problem.arrays.items():
            tensor = torch.tensor(array.T.copy() if array.ndim == 2 else array)
            self.tensors[name] = tensor = torch.nn.Parameter(tensor, training) if is_trained(name) else tensor
            if is_trained(name):
                self.register_parameter(name.replace(".", "_"), tensor)

    def forward(self, x):
        return forward(self.layers, self.tensors, x, self.use)

    def arrays(self):
        return {n: t.detach().numpy().T if t.ndim == 2 else t.detach().numpy() for n, t in self.tensors.items()}


def same(function):
    return function


def build(case, problem, threads, compiler=same, use=InPlace):
    torch.set_num_threads(threads)
    return infer(case, problem, compiler, use) if case.mode == "infer" else train(case, problem, compiler, use)


def infer(case, problem, compiler, use):
    """In bfloat16 the weights are that once and for all: nothing needs them in float32."""
    twin = Twin(problem.folded(), training=False, use=use).eval()
    kind = getattr(torch, case.precision)
    twin.tensors = {name: torch.nn.Parameter(tensor.to(kind), False) for name, tensor in twin.tensors.items()}
    run, inputs = compiler(twin), torch.from_numpy(problem.x)

    @torch.inference_mode()
    def step():
        return run(inputs.to(kind)).float().numpy()

    return step, dict


def train(case, problem, compiler, use):
    twin = Twin(problem, training=True, use=use)
    inputs, target = torch.from_numpy(problem.x), torch.from_numpy(problem.labels)
    optimizer = RULES[case.optimizer](twin.parameters(), **OPTIMIZERS[case.optimizer], fused=True)
    narrow = case.precision != "float32"

    def loss_of(inputs, target):
        # Mixed precision: the parameters are float32, and cast for every product.
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow, cache_enabled=False):
            logits = twin(inputs)
        return functional.cross_entropy(logits.float(), target)

    run = compiler(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = run(inputs, target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, twin.arrays
