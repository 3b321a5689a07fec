from __future__ import annotations

import resnetcore as rc

from ..networks import OPTIMIZERS

RULES = {"sgd": rc.SGD, "momentum": rc.SGD, "adamw": rc.AdamW}


def network(problem, dtype, device="cpu"):
    layers = [
        rc.Layer(
            layer.width,
            skips=layer.skips,
            norm="batch" if layer.norm else None,
            activation="relu" if layer.relu else None,
        )
        for layer in problem.layers
    ]
    net = rc.Network(problem.x.shape[1], layers, dtype=dtype, device=device)
    net.set_parameters(problem.arrays)
    return net


def build(case, problem, threads):
    rc.set_num_threads(threads)
    net = network(problem, case.precision, case.device)
    x, labels = problem.x, problem.labels
    if case.mode == "infer":
        return lambda: net.predict(x), dict
    trainer = rc.Trainer(net, optimizer=RULES[case.optimizer](**OPTIMIZERS[case.optimizer]))
    return lambda: trainer.step(x, labels), lambda: {**net.parameters(), **net.buffers()}
