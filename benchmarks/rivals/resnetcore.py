from __future__ import annotations

import resnetcore as rc

from ..shapes import CLASSES, LEARNING_RATE, has_skip


def build(shape, parameters, x, labels, threads):
    rc.set_num_threads(threads)
    layers = [
        rc.Layer(shape.width, skips={2: "identity"} if has_skip(n, shape.depth) else {}) for n in range(1, shape.depth)
    ]
    net = rc.Network(shape.width, [*layers, rc.Layer(CLASSES, activation=None)])
    names = {}
    for number, (weight, bias) in enumerate(parameters, 1):
        names[f"{number}.weight"], names[f"{number}.bias"] = weight, bias
    net.set_parameters(names)
    trainer = rc.Trainer(net, optimizer=rc.SGD(lr=LEARNING_RATE))
    return lambda: trainer.step(x, labels), lambda: net.parameters()["1.weight"]
