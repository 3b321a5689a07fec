"""PyTorch's eager step captured into a CUDA graph once and played again: nothing of Python is left in it."""

from __future__ import annotations

import torch

from . import Unable, torch_eager

WARM_UP = 3  # calls after which libraries have the memory they work in


def record(work, twin=None, optimizer=None):
    """What the warm-up trained is undone; a graph that is captured has not run yet."""
    before = {name: tensor.detach().clone() for name, tensor in twin.tensors.items()} if twin else {}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.no_grad():
        for name, tensor in before.items():
            twin.tensors[name].copy_(tensor)
        for state in optimizer.state.values() if optimizer else ():
            for part in state.values():
                if isinstance(part, torch.Tensor):
                    part.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def play():
        graph.replay()
        return result

    play.reads = work  # what the graph reads in place, the batch too, lives as long as it does
    return play


def build(case, problem, threads):
    if case.device == "cpu":
        raise Unable("CUDA graphs are a GPU's")
    return torch_eager.build(case, problem, threads, record=record)
