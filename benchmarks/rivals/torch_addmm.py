"""A chain of cuBLAS' products without autograd, as one would write it for speed by hand: `addmm` forward, the update
W −= η·Aᵀδ as one product that adds to W, the whole step a CUDA graph. SGD in float32, without norms in training.
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
    if case.mode == "train" and (case.variant == "norm" or case.optimizer != "sgd" or case.precision != "float32"):
        raise Unable("written by hand for SGD in float32 without norms")
    torch.set_num_threads(threads)
    record = torch_eager.same if case.device == "cpu" else torch_graph.record
    return (infer if case.mode == "infer" else train)(case, problem, record)


def infer(case, problem, record):
    problem, kind = problem.folded(), getattr(torch, case.precision)
    weights = {name: torch.tensor(array, device=case.device, dtype=kind) for name, array in problem.arrays.items()}
    host = torch_eager.on_host(problem.x, case.device)
    inputs = host.to(case.device, copy=True)
    with torch.inference_mode():
        work = record(lambda: forward(problem.layers, weights, inputs.to(kind), Chain()).float())

    @torch.inference_mode()
    def step():
        inputs.copy_(host, non_blocking=True)
        return work().cpu().numpy()

    return step, dict


class Twin:
    """The arrays on the device, and a step that updates them in place."""

    def __init__(self, problem, device, lr):
        self.layers, self.lr = problem.layers, lr
        self.tensors = {name: torch.tensor(array, device=device) for name, array in problem.arrays.items()}
        self.inputs = torch.tensor(problem.x, device=device)
        self.target = torch.tensor(problem.labels, device=device)

    def forward(self):
        outputs = [self.inputs]
        for number, layer in enumerate(self.layers, 1):
            z = torch.addmm(self.tensors[f"{number}.bias"], outputs[-1], self.tensors[f"{number}.weight"])
            for back, kind in layer.skips.items():
                earlier = outputs[number - back]
                z = (
                    z.addmm_(earlier, self.tensors[f"{number}.skip.{back}.weight"])
                    if kind == "learned"
                    else z.add_(earlier)
                )
            outputs.append(torch.relu_(z) if layer.relu else z)
        return outputs

    def weights_of(self, number):
        """(layers back, weight) of every product of the layer."""
        skips = [back for back, kind in self.layers[number - 1].skips.items() if kind == "learned"]
        return [(1, self.tensors[f"{number}.weight"]), *((b, self.tensors[f"{number}.skip.{b}.weight"]) for b in skips)]

    def backward(self, outputs):
        """δ of every layer is taken before any weight changes."""
        deltas = [None] * len(outputs)
        deltas[-1] = functional.softmax(outputs[-1], 1)
        deltas[-1][torch.arange(len(self.target), device=self.target.device), self.target] -= 1
        deltas[-1] /= len(self.target)
        for number in range(len(self.layers), 0, -1):
            delta = deltas[number]
            if self.layers[number - 1].relu:
                delta.mul_(outputs[number] > 0)
            for back, kind in self.layers[number - 1].skips.items():
                if kind == "identity" and number > back:
                    self.give(deltas, number - back, delta, None)
            for back, weight in self.weights_of(number):
                if number > back:
                    self.give(deltas, number - back, delta, weight)
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
            for back, weight in self.weights_of(number):
                weight.addmm_(outputs[number - back].t(), delta, alpha=-self.lr)
            self.tensors[f"{number}.bias"].sub_(delta.sum(0), alpha=self.lr)

    def step(self):
        outputs = self.forward()
        loss = functional.cross_entropy(outputs[-1], self.target)
        self.update(outputs, self.backward(outputs))
        return loss

    def arrays(self):
        return {name: tensor.cpu().numpy() for name, tensor in self.tensors.items()}


def train(case, problem, record):
    twin = Twin(problem, case.device, OPTIMIZERS["sgd"]["lr"])
    host = torch_eager.on_host(problem.x, case.device), torch_eager.on_host(problem.labels, case.device)
    with torch.no_grad():
        work = record(twin.step, twin)

    @torch.no_grad()
    def step():
        twin.inputs.copy_(host[0], non_blocking=True)
        twin.target.copy_(host[1], non_blocking=True)
        return work().item()

    return step, twin.arrays
