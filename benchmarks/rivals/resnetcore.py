from __future__ import annotations

import resnetcore as rc
from resnetcore import _core

from ..networks import OPTIMIZERS

RULES = {"sgd": rc.SGD, "momentum": rc.SGD, "adamw": rc.AdamW}


def network(problem, dtype, device="cpu", products="highest"):
    layers = [
        rc.Layer(
            layer.width,
            skips=layer.skips,
            norm="batch" if layer.norm else None,
            activation="relu" if layer.relu else None,
        )
        for layer in problem.layers
    ]
    net = rc.Network(problem.x.shape[1], layers, dtype=dtype, device=device, matmul_precision=products)
    net.set_parameters(problem.arrays)
    return net


def on_device(array, device):
    return array if device == "cpu" else _core.to_device(array, device)


def build(case, problem, threads):
    rc.set_num_threads(threads)
    net = network(problem, case.precision, case.device, case.products)
    x, labels = (on_device(array, case.device) for array in (problem.x, problem.labels))
    if case.mode == "infer":
        return lambda: net.predict(x), dict
    trainer = rc.Trainer(net, optimizer=RULES[case.optimizer](**OPTIMIZERS[case.optimizer]))
    return lambda: trainer.step(x, labels), lambda: {**net.parameters(), **net.buffers()}
