"""resnetcore inside PyTorch: a `ResidualStack`, whose gradients PyTorch's optimizer takes."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional

from resnetcore.torch import ResidualStack

from .resnetcore import network
from .torch_eager import configure, optimizer_of


def build(case, problem, threads, flat=False, own_loss=False):
    configure(case, threads)
    module = ResidualStack.from_network(network(problem, "float32"), flat=flat).to(case.device)
    inputs, target = (torch.from_numpy(array).to(case.device) for array in (problem.x, problem.labels))
    narrow = case.precision != "float32"

    def logits():
        with torch.autocast(case.device, torch.bfloat16, enabled=narrow, cache_enabled=False):
            return module(inputs).float()

    def mean_loss():
        if not own_loss:
            return functional.cross_entropy(logits(), target)
        with torch.autocast(case.device, torch.bfloat16, enabled=narrow, cache_enabled=False):
            return module(inputs, target)

    if case.mode == "infer":
        module.eval()
        return torch.inference_mode()(logits), dict
    optimizer = optimizer_of(case, module.parameters())

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = mean_loss()
        loss.backward()
        optimizer.step()
        return loss.item()

    def arrays():
        net = copy.deepcopy(module).cpu().to_network()
        return {**net.parameters(), **net.buffers()}

    return step, arrays
