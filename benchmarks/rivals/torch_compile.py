"""torch.compile at its best; on a GPU the compiled step is captured into a CUDA graph as a whole, its optimizer included."""

from __future__ import annotations

from functools import partial

import torch

from . import torch_eager, torch_graph


def build(case, problem, threads):
    torch.compiler.reset()  # or the code of the last shape would be made more general instead of compiled anew
    # Frozen weights are packed once, for inference alone: freezing is what a deployed network gets.
    options = {"freezing": True} if case.mode == "infer" else {}
    compiler = partial(torch.compile, fullgraph=True, dynamic=False, options=options)
    record = torch_eager.same if case.device == "cpu" else torch_graph.record
    return torch_eager.build(case, problem, threads, compiler, record=record)
