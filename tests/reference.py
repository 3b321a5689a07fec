"""The truth: forward, backward, losses and updates in float64 NumPy, straight from the formulas of docs/math.md.

Nothing here is shared with the library, and nothing is arranged for speed. A layer is a dict as `resnetcore.Layer`
describes it; parameters are a dict by name, `{"1.weight": …}`; layer 0 is the input.
"""

from __future__ import annotations

import math

import numpy as np

EPS = 1e-5

_erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(z):
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))


def normal_cdf(z):
    return 0.5 * (1 + _erf(z / math.sqrt(2)))


def normal_density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


# name: (g, g′), both of the argument z.
ACTIVATIONS = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z: np.exp(np.minimum(z, 0))),
    "gelu": (lambda z: z * normal_cdf(z), lambda z: normal_cdf(z) + z * normal_density(z)),
    "silu": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z)))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    # Linear above 20, as PyTorch's.
    "softplus": (
        lambda z: np.where(z > 20, z, np.log1p(np.exp(np.minimum(z, 20)))),
        lambda z: np.where(z > 20, 1, sigmoid(z)),
    ),
}


# g′ of the output, for activations of which nothing else is kept. The same numbers, but for what rounding the output does.
FROM_OUTPUT = {
    "identity": np.ones_like,
    "relu": lambda a: (a > 0) * 1.0,
    "leaky_relu": lambda a: np.where(a > 0, 1, 0.01),
    "elu": lambda a: np.where(a > 0, 1, a + 1),
    "tanh": lambda a: 1 - a * a,
    "sigmoid": lambda a: a * (1 - a),
    "softplus": lambda a: np.where(a > 20, 1, -np.expm1(-a)),
}


def rounded(a):
    """The nearest bfloat16, ties to even. By way of float32 a tie can be rounded twice, one time in 2^16."""
    bits = np.asarray(a, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return nearest.astype(np.uint32).view(np.float32).astype(np.float64)


def halves(a):
    """The sum of two bfloat16 that `a` is kept as where they are multiplied one by one: 16 bits of precision."""
    high = rounded(a)
    return high + rounded(np.asarray(a, np.float64) - high)


def distance(got, exact):
    return np.linalg.norm(np.asarray(got, np.float64) - exact) / max(np.linalg.norm(exact), 1e-30)


def philox(seed, purpose, step, index, block=None):
    """Words `index` of Philox4x32-10 (Salmon et al. 2011) under key `seed` and counter (index // 4, purpose, step).

    `block` stands for index // 4 where it is given.
    """
    index = np.asarray(index, np.uint64)
    low = np.uint64(0xFFFFFFFF)
    block = index >> np.uint64(2) if block is None else np.full_like(index, block)
    counter = [block & low, block >> np.uint64(32), np.full_like(index, purpose), np.full_like(index, step)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [
            (second >> np.uint64(32)) ^ counter[1] ^ np.uint64(key[0]),
            second & low,
            (first >> np.uint64(32)) ^ counter[3] ^ np.uint64(key[1]),
            first & low,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.choose((index & np.uint64(3)).astype(int), counter)


def dropout_mask(seed, layer, branch, step, shape, p):
    """0 or 1 / (1 − p): dropped where the word over 2³² is below p. A layer's sites are 2·layer and 2·layer + 1."""
    purpose = 1 | (2 * layer + branch) << 8
    words = philox(seed, purpose, step, np.arange(math.prod(shape))).reshape(shape)
    return np.where(words / 2.0**32 < p, 0.0, 1 / (1 - p))


class Pass:
    """One forward pass, remembering what the backward pass reads.

    float64 is the truth for float32; longdouble for float64. `store` stands for the rounding of what a network stores:
    activations, their gradients, and the matrices that products read. The outputs themselves are not rounded.
    """

    def __init__(self, layers, parameters, x, training, seed=0, step=0, dtype=np.float64, store=None):
        self.layers, self.p, self.training = layers, parameters, training
        self.seed, self.step, self.dtype = seed, step, dtype
        self.rounds, self.store = store is not None, store or (lambda a: a)
        self.a = [self.store(np.asarray(x, dtype))]
        self.kept = [None]
        self.running = {}
        for number in range(1, len(layers) + 1):
            self.a.append(self._layer(number))

    def _get(self, number, name):
        return np.asarray(self.p[f"{number}.{name}"], self.dtype)

    def _matrix(self, number, name):
        return self.store(self._get(number, name))

    def _norm(self, number, z, kept):
        gamma, beta = self._get(number, "norm.weight"), self._get(number, "norm.bias")
        mean, var = self._get(number, "norm.running_mean"), self._get(number, "norm.running_var")
        if self.training:
            n = len(z)
            batch_mean, batch_var = z.mean(axis=0), z.var(axis=0)
            self.running[f"{number}.norm.running_mean"] = 0.9 * mean + 0.1 * batch_mean
            self.running[f"{number}.norm.running_var"] = 0.9 * var + 0.1 * batch_var * n / (n - 1)
            mean, var = batch_mean, batch_var
        kept["deviation"] = np.sqrt(var + EPS)
        kept["xhat"] = (z - mean) / kept["deviation"]
        return kept["xhat"] * gamma + beta

    def _mask(self, number, branch, shape, p):
        if not self.training or p == 0:
            return 1.0
        return dropout_mask(self.seed, number, branch, self.step, shape, p).astype(self.dtype)

    def _layer(self, number):
        layer, kept = self.layers[number - 1], {}
        self.kept.append(kept)
        g = self._function(layer, 0)
        before = self.a[number - 1]
        if layer["pre"]:
            u = self._norm(number, before, kept) if layer["norm"] else before
            kept["u"], kept["input"] = u, self.store(g(u))
            kept["slope"] = self._slope(layer, u, kept["input"], masked=False)
        else:
            kept["input"] = before
        branch = self._branch(number, kept)
        kept["branch_mask"] = self._mask(number, 1, branch.shape, layer["branch_dropout"])
        z = branch * kept["branch_mask"]
        for back, kind in layer["skips"].items():
            source = self.a[number - back]
            z = z + (source if isinstance(kind, str) and kind == "identity" else source @ self._skip(number, back))
        kept["z"] = z
        a = z if layer["pre"] else g(z)
        if layer["gate"]:
            kept["h"] = a = self.store(a)
            kept["t"] = self.store(
                sigmoid(before @ self._matrix(number, "gate.weight") + self._get(number, "gate.bias"))
            )
            a = kept["t"] * a + (1 - kept["t"]) * before
        kept["mask"] = self._mask(number, 0, a.shape, layer["dropout"])
        if not layer["pre"]:
            output = kept["h"] if layer["gate"] else self.store(a)
            kept["slope"] = self._slope(layer, z, output, masked=layer["dropout"] > 0 and not layer["gate"])
        a = a * kept["mask"]
        return a if number == len(self.layers) else self.store(a)

    def _branch(self, number, kept):
        layer, weight = self.layers[number - 1], self._get(number, "weight")
        norm = layer["norm"] and not layer["pre"]
        if norm and not self.training:  # folded into the weight, which is rounded then
            scale = self._get(number, "norm.weight") / np.sqrt(self._get(number, "norm.running_var") + EPS)
            shift = self._get(number, "norm.bias") - self._get(number, "norm.running_mean") * scale
            return kept["input"] @ self.store(weight * scale) + shift
        branch = kept["input"] @ self.store(weight)
        if f"{number}.bias" in self.p:
            branch = branch + self._get(number, "bias")
        if self.training and (norm or layer["branch_dropout"]):
            branch = self.store(branch)
        return self._norm(number, branch, kept) if norm else branch

    def _function(self, layer, which):
        return lambda z: np.asarray(ACTIVATIONS[layer["activation"]][which](z), self.dtype)

    def _slope(self, layer, z, output, masked):
        """g′, of the argument; where rounding matters, of what a network keeps: the output if that is enough."""
        if self.rounds and not masked and layer["activation"] in FROM_OUTPUT:
            return FROM_OUTPUT[layer["activation"]](output)
        return self._function(layer, 1)(self.store(z))

    def _skip(self, number, back):
        return self._matrix(number, f"skip.{back}.weight")

    def backward(self, gradient):
        """(gradients by name, ∂E/∂input) from ∂E/∂output."""
        d_a = [np.zeros_like(a) for a in self.a]
        d_a[-1] = d_a[-1] + self.store(np.asarray(gradient, self.dtype))
        out = {}
        for number in range(len(self.layers), 0, -1):
            self._layer_backward(number, d_a, out)
        return out, self.store(d_a[0])

    def _layer_backward(self, number, d_a, out):
        layer, kept = self.layers[number - 1], self.kept[number]
        before = self.a[number - 1]
        d = d_a[number] * kept["mask"]
        if layer["gate"]:
            t, d = kept["t"], self.store(d)
            d_t = self.store(d * (kept["h"] - before) * t * (1 - t))
            out[f"{number}.gate.weight"] = before.T @ d_t
            out[f"{number}.gate.bias"] = d_t.sum(axis=0)
            d_a[number - 1] += self.store(d * (1 - t)) + d_t @ self._matrix(number, "gate.weight").T
            d = d * t
        delta = self.store(d if layer["pre"] else d * kept["slope"])
        for back, kind in layer["skips"].items():
            if isinstance(kind, str) and kind == "identity":
                d_a[number - back] += delta
                continue
            d_a[number - back] += delta @ self._skip(number, back).T
            if isinstance(kind, str):
                out[f"{number}.skip.{back}.weight"] = self.a[number - back].T @ delta
        d_branch = delta * kept["branch_mask"]
        if layer["norm"] and not layer["pre"]:
            d_branch = self._norm_backward(number, d_branch, out)
        d_branch = self.store(d_branch)
        out[f"{number}.weight"] = kept["input"].T @ d_branch
        if f"{number}.bias" in self.p:
            out[f"{number}.bias"] = d_branch.sum(axis=0)
        d_input = d_branch @ self._matrix(number, "weight").T
        if layer["pre"]:
            d_input = self.store(d_input * kept["slope"])
            if layer["norm"]:
                d_input = self.store(self._norm_backward(number, d_input, out))
        d_a[number - 1] += d_input

    def _norm_backward(self, number, d, out):
        kept = self.kept[number]
        out[f"{number}.norm.weight"] = (d * kept["xhat"]).sum(axis=0)
        out[f"{number}.norm.bias"] = d.sum(axis=0)
        d_xhat = d * self._get(number, "norm.weight")
        if not self.training:
            return d_xhat / kept["deviation"]
        return (d_xhat - d_xhat.mean(axis=0) - kept["xhat"] * (d_xhat * kept["xhat"]).mean(axis=0)) / kept["deviation"]


def loss_and_gradient(name, z, y, class_weight=None, sample_weight=None, label_smoothing=0.0, delta=1.0):
    """A loss of logits z and ∂loss/∂z, averaged as PyTorch averages."""
    n, columns = z.shape
    sample = np.ones(n) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if name == "cross_entropy":
        weight = np.ones(columns) if class_weight is None else np.asarray(class_weight, np.float64)
        labels = np.asarray(y).ndim == 1
        hard = np.eye(columns)[y] if labels else np.asarray(y, np.float64)
        t = weight * ((1 - label_smoothing) * hard + label_smoothing / columns)
        log_p = z - z.max(axis=1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        total = (sample * (weight[y] if labels else 1)).sum()
        loss = -(sample[:, None] * t * log_p).sum() / total
        return loss, sample[:, None] * (np.exp(log_p) * t.sum(axis=1, keepdims=True) - t) / total
    t = np.asarray(y, np.float64).reshape(n, columns)
    total = sample.sum() * columns
    d = z - t
    if name == "binary_cross_entropy":
        weight = np.ones_like(t) if class_weight is None else class_weight[1] * t + class_weight[0] * (1 - t)
        each, slope = weight * (np.logaddexp(0, z) - z * t), weight * (sigmoid(z) - t)
    elif name == "mse":
        each, slope = d * d, 2 * d
    elif name == "mae":
        each, slope = np.abs(d), np.sign(d)
    elif name == "huber":
        inside = np.abs(d) <= delta
        each = np.where(inside, 0.5 * d * d, delta * (np.abs(d) - 0.5 * delta))
        slope = np.where(inside, d, delta * np.sign(d))
    return (sample[:, None] * each).sum() / total, sample[:, None] * slope / total


class Optimizer:
    """SGD (momentum, Nesterov), Adam and AdamW as PyTorch defines them."""

    def __init__(self, name, momentum=0.0, nesterov=False, weight_decay=0.0, beta1=0.9, beta2=0.999, eps=1e-8):
        self.name, self.momentum, self.nesterov, self.decay = name, momentum, nesterov, weight_decay
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.state, self.t = {}, 0

    def step(self, parameters, gradients, lr):
        self.t += 1
        return {name: self._update(name, w, gradients.get(name), lr) for name, w in parameters.items()}

    def _update(self, name, w, g, lr):
        if g is None:
            return w
        if self.name == "adamw":
            w = w - lr * self.decay * w
        else:
            g = g + self.decay * w
        if self.name == "sgd":
            if self.momentum == 0:
                return w - lr * g
            v = self.state[name] = self.momentum * self.state.get(name, 0.0) + g
            return w - lr * (g + self.momentum * v if self.nesterov else v)
        m, v = self.state.get(name, (0.0, 0.0))
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * g * g
        self.state[name] = m, v
        return w - lr * (m / (1 - self.beta1**self.t)) / (np.sqrt(v / (1 - self.beta2**self.t)) + self.eps)
