"""PyTorch at its best on a CPU: fused optimizers, operations in place, inference mode, norms folded for inference."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..networks import EPS, MOMENTUM, OPTIMIZERS, forward, is_trained

RULES = {"sgd": torch.optim.SGD, "momentum": torch.optim.SGD, "adamw": torch.optim.AdamW}


def optimizer_of(case, parameters, **settings):
    """As fast as PyTorch has it: fused, but one subtraction from all parameters is no slower, and with two threads faster;
    and for a single parameter without their lists of parameters.
    """
    parameters = list(parameters)
    fused = case.optimizer != "sgd" or case.device != "cpu"
    ways = {"fused": True} if fused else {"foreach": len(parameters) > 1}
    return RULES[case.optimizer](parameters, **OPTIMIZERS[case.optimizer], **settings, **ways)


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

    def __init__(self, problem, training, use, device):
        super().__init__()
        self.layers, self.use, self.tensors = problem.layers, use, {}
        for name, array in problem.arrays.items():
            tensor = torch.tensor(array.T.copy() if array.ndim == 2 else array, device=device)
            self.tensors[name] = tensor = torch.nn.Parameter(tensor, training) if is_trained(name) else tensor
            if is_trained(name):
                self.register_parameter(name.replace(".", "_"), tensor)

    def forward(self, x):
        return forward(self.layers, self.tensors, x, self.use)

    def arrays(self):
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.tensors.items()}
        return {name: array.T if array.ndim == 2 else array for name, array in tensors.items()}


def same(function, *_):
    return function


def configure(case, threads):
    """PyTorch's threads, and on a CPU its permission for float32 products of less: what asks sees it, its own products too."""
    torch.set_num_threads(threads)
    if case.device == "cpu":
        torch.set_float32_matmul_precision(case.products)


def build(case, problem, threads, compiler=same, use=InPlace, record=same):
    """`record` is given the part of a step that is all the device's, and gives back what does the same."""
    configure(case, threads)
    return (infer if case.mode == "infer" else train)(case, problem, compiler, use, record)


def infer(case, problem, compiler, use, record):
    """In bfloat16 the weights are that once and for all: nothing needs them in float32."""
    twin = Twin(problem.folded(), training=False, use=use, device=case.device).eval()
    kind = getattr(torch, case.precision)
    twin.tensors = {name: torch.nn.Parameter(tensor.to(kind), False) for name, tensor in twin.tensors.items()}
    inputs = torch.from_numpy(problem.x).to(case.device)
    run = compiler(twin)
    with torch.inference_mode():
        work = record(lambda: run(inputs.to(kind)).float())
    return torch.inference_mode()(work), dict


def train(case, problem, compiler, use, record):
    twin = Twin(problem, training=True, use=use, device=case.device)
    batch = [torch.from_numpy(array).to(case.device) for array in (problem.x, problem.labels)]
    settings = {"capturable": True} if record is not same and case.optimizer == "adamw" else {}
    optimizer = optimizer_of(case, twin.parameters(), **settings)
    narrow = case.precision != "float32"

    def loss_of(inputs, target):
        # Mixed precision: the parameters are float32, and cast for every product.
        with torch.autocast(case.device, torch.bfloat16, enabled=narrow, cache_enabled=False):
            logits = twin(inputs)
        return functional.cross_entropy(logits.float(), target)

    run = compiler(loss_of)

    def work():
        optimizer.zero_grad(set_to_none=True)
        loss = run(*batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    work = record(work, twin, optimizer)
    return lambda: work().item(), twin.arrays
