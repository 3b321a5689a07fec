"""The networks of tests/reference.py in PyTorch's own operations, autograd and optimizers.

What PyTorch makes of a network in float32 is the measure of what float32 can do with it.
"""

from __future__ import annotations

import torch

import reference
from reference import dropout_mask

F = torch.nn.functional
ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


def activation(name):
    """PyTorch's own; of one that PyTorch has not, the reference's formulas."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    g, slope = reference.ACTIVATIONS[name]

    class OfTheReference(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return torch.tensor(g(as_float64(z)), dtype=z.dtype)

        @staticmethod
        def backward(ctx, d):
            return d * torch.tensor(slope(as_float64(ctx.saved_tensors[0])), dtype=d.dtype)

    return OfTheReference.apply


class TorchNetwork:
    """`layers` and `arrays` as tests/reference.py takes them; `parameters` and `buffers` by the same names.

    `masks` is applied to each dropout mask, for problems whose rows and units have been renumbered.
    """

    def __init__(self, layers, arrays, trained, dtype, seed=0, masks=lambda m: m):
        self.layers, self.seed, self.masks = layers, seed, masks
        self.dtype = getattr(torch, dtype)
        tensors = {name: torch.tensor(a, dtype=self.dtype) for name, a in arrays.items()}
        self.parameters = {name: tensors[name].requires_grad_() for name in trained}
        self.buffers = {name: t for name, t in tensors.items() if name not in trained}
        self.training, self.step = True, 0

    def __call__(self, x):
        a = [x]
        for number in range(1, len(self.layers) + 1):
            a.append(self._layer(number, a))
        return a[-1]

    def arrays(self):
        return {name: t.detach().numpy().copy() for name, t in {**self.parameters, **self.buffers}.items()}

    def _get(self, name):
        return self.parameters[name] if name in self.parameters else self.buffers[name]

    def _norm(self, number, z):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(z, *(self._get(f"{number}.norm.{name}") for name in names), self.training)

    def _dropout(self, number, branch, z, p):
        if not self.training or p == 0:
            return z
        mask = dropout_mask(self.seed, number, branch, self.step, z.shape, p)
        return z * torch.tensor(self.masks(mask), dtype=self.dtype)

    def _layer(self, number, a):
        layer, before = self.layers[number - 1], a[-1]
        g = activation(layer["activation"])
        inner = before
        if layer["pre"]:
            inner = g(self._norm(number, before) if layer["norm"] else before)
        z = inner @ self._get(f"{number}.weight")
        if f"{number}.bias" in self.parameters:
            z = z + self._get(f"{number}.bias")
        if layer["norm"] and not layer["pre"]:
            z = self._norm(number, z)
        z = self._dropout(number, 1, z, layer["branch_dropout"])
        for back, kind in layer["skips"].items():
            identity = isinstance(kind, str) and kind == "identity"
            z = z + (a[-back] if identity else a[-back] @ self._get(f"{number}.skip.{back}.weight"))
        out = z if layer["pre"] else g(z)
        if layer["gate"]:
            t = torch.sigmoid(before @ self._get(f"{number}.gate.weight") + self._get(f"{number}.gate.bias"))
            out = t * out + (1 - t) * before
        return self._dropout(number, 0, out, layer["dropout"])


def loss_of(z, y, name, class_weight=None, label_smoothing=0.0, sample_weight=None, delta=1.0):
    """PyTorch's losses, averaged over the weights of the rows as PyTorch averages over those of the classes."""
    sample = torch.ones(len(z), dtype=z.dtype) if sample_weight is None else torch.tensor(sample_weight, dtype=z.dtype)
    weight = None if class_weight is None else torch.tensor(class_weight, dtype=z.dtype)
    y = torch.tensor(y)
    if name == "cross_entropy":
        each = F.cross_entropy(z, y, weight=weight, label_smoothing=label_smoothing, reduction="none")
        return (sample * each).sum() / (sample if weight is None else sample * weight[y]).sum()
    y = y.to(z.dtype)
    if name == "binary_cross_entropy":
        by_class = None if weight is None else weight[1] * y + weight[0] * (1 - y)
        each = F.binary_cross_entropy_with_logits(z, y, weight=by_class, reduction="none")
    elif name == "huber":
        each = F.huber_loss(z, y, reduction="none", delta=delta)
    else:
        each = {"mse": F.mse_loss, "mae": F.l1_loss}[name](z, y, reduction="none")
    return (sample[:, None] * each).mean(dim=1).sum() / sample.sum()


def optimizer_of(parameters, name, lr, momentum=0.0, nesterov=False, weight_decay=0.0, eps=1e-8):
    parameters = list(parameters)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(parameters, lr=lr, weight_decay=weight_decay, eps=eps)


def as_float64(tensor):
    return tensor.detach().double().numpy()
