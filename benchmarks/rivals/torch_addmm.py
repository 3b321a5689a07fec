"""A chain of cuBLAS' products without autograd, as one would write it for speed by hand: `addmm` forward, the update
W −= η·Aᵀδ as one product that adds to W, the whole step a CUDA graph. SGD, without norms in training. In bfloat16 the
gradient of the float32 parameters comes from a product of float32 results, and the copies that products read are made anew.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ..networks import OPTIMIZERS, forward
from . import Unable, torch_eager, torch_graph


class Chain:
    """Weights are (in, out)."""

    @staticmethod
    def product(a, weight, bias):
        return torch.addmm(bias, a, weight)

    @staticmethod
    def add_product(z, a, weight):
        return z.addmm_(a, weight)

    add = staticmethod(torch.Tensor.add_)
    relu = staticmethod(torch.relu_)


def build(case, problem, threads):
    if case.mode == "train" and (case.variant == "norm" or case.optimizer != "sgd"):
        raise Unable("written by hand for SGD without norms")
    torch.set_num_threads(threads)
    record = torch_eager.same if case.device == "cpu" else torch_graph.record
    return (infer if case.mode == "infer" else train)(case, problem, record)


def infer(case, problem, record):
    problem, kind = problem.folded(), getattr(torch, case.precision)
    weights = {name: torch.tensor(array, device=case.device, dtype=kind) for name, array in problem.arrays.items()}
    inputs = torch.from_numpy(problem.x).to(case.device)
    with torch.inference_mode():
        work = record(lambda: forward(problem.layers, weights, inputs.to(kind), Chain()).float())
    return torch.inference_mode()(work), dict


class Twin:
    """The arrays on the device, and a step that updates them in place."""

    def __init__(self, problem, device, lr, kind):
        self.layers, self.lr = problem.layers, lr
        self.tensors = {name: torch.tensor(array, device=device) for name, array in problem.arrays.items()}
        self.read = self.tensors  # by products
        if kind != torch.float32:
            self.read = {name: tensor.to(kind) for name, tensor in self.tensors.items()}
        self.inputs = torch.tensor(problem.x, device=device)
        self.target = torch.tensor(problem.labels, device=device)

    def forward(self):
        outputs = [self.inputs.to(self.read["1.weight"].dtype)]
        for number, layer in enumerate(self.layers, 1):
            z = torch.addmm(self.read[f"{number}.bias"], outputs[-1], self.read[f"{number}.weight"])
            for back, kind in layer.skips.items():
                earlier = outputs[number - back]
                z = (
                    z.addmm_(earlier, self.read[f"{number}.skip.{back}.weight"])
                    if kind == "learned"
                    else z.add_(earlier)
                )
            outputs.append(torch.relu_(z) if layer.relu else z)
        return outputs

    def weights_of(self, number):
        """(layers back, name of the weight) of every product of the layer."""
        skips = [back for back, kind in self.layers[number - 1].skips.items() if kind == "learned"]
        return [(1, f"{number}.weight"), *((back, f"{number}.skip.{back}.weight") for back in skips)]

    def backward(self, outputs):
        """δ of every layer is taken before any weight changes."""
        deltas = [None] * len(outputs)
        last = functional.softmax(outputs[-1].float(), 1)
        last[torch.arange(len(self.target), device=self.target.device), self.target] -= 1
        deltas[-1] = last.div_(len(self.target)).to(outputs[-1].dtype)
        for number in range(len(self.layers), 0, -1):
            delta = deltas[number]
            if self.layers[number - 1].relu:
                delta.mul_(outputs[number] > 0)
            for back, kind in self.layers[number - 1].skips.items():
                if kind == "identity" and number > back:
                    self.give(deltas, number - back, delta, None)
            for back, weight in self.weights_of(number):
                if number > back:
                    self.give(deltas, number - back, delta, self.read[weight])
        return deltas

    @staticmethod
    def give(deltas, to, delta, weight):
        if deltas[to] is None:
            deltas[to] = delta.clone() if weight is None else delta @ weight.t()
        elif weight is None:
            deltas[to].add_(delta)
        else:
            deltas[to].addmm_(delta, weight.t())

    def update(self, outputs, deltas):
        for number in range(1, len(self.layers) + 1):
            delta = deltas[number]
            for back, name in self.weights_of(number):
                weight, a = self.tensors[name], outputs[number - back].t()
                if self.read is self.tensors:
                    weight.addmm_(a, delta, alpha=-self.lr)
                else:
                    weight.sub_(float32_product(a, delta), alpha=self.lr)
            self.tensors[f"{number}.bias"].sub_(delta.sum(0, dtype=torch.float32), alpha=self.lr)
        if self.read is not self.tensors:
            torch._foreach_copy_(list(self.read.values()), list(self.tensors.values()))

    def step(self):
        outputs = self.forward()
        loss = functional.cross_entropy(outputs[-1].float(), self.target)
        self.update(outputs, self.backward(outputs))
        return loss

    def arrays(self):
        return {name: tensor.cpu().numpy() for name, tensor in self.tensors.items()}


def float32_product(a, b):
    """Of bfloat16: cuBLAS leaves its float32 sums as they are; PyTorch offers that on a GPU alone."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def train(case, problem, record):
    twin = Twin(problem, case.device, OPTIMIZERS["sgd"]["lr"], getattr(torch, case.precision))
    with torch.no_grad():
        work = record(twin.step, twin)
    return torch.no_grad()(lambda: work().item()), twin.arrays
