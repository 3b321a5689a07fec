from __future__ import annotations

from functools import partial

import torch

from . import torch_eager


def build(case, problem, threads):
    # Frozen weights are packed once, for inference alone: freezing is what a deployed network gets.
    options = {"freezing": True} if case.mode == "infer" else {}
    return torch_eager.build(case, problem, threads, partial(torch.compile, fullgraph=True, options=options))
