"""The same of one parameter, with the loss in the stack: its gradients come in the same pass."""

from __future__ import annotations

from functools import partial

from . import resnetcore_torch

build = partial(resnetcore_torch.build, flat=True, own_loss=True)
