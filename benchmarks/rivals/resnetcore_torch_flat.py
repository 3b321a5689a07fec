"""The same of one parameter, which autograd and the optimizer take at once."""

from __future__ import annotations

from functools import partial

from . import resnetcore_torch

build = partial(resnetcore_torch.build, flat=True)
