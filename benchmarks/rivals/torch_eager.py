from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, linear

from ..shapes import LEARNING_RATE, has_skip


def build(shape, parameters, x, labels, threads, compiled=False):
    torch.set_num_threads(threads)
    pairs = [(torch.tensor(w.T.copy(), requires_grad=True), torch.tensor(b, requires_grad=True)) for w, b in parameters]
    optimizer = torch.optim.SGD([p for pair in pairs for p in pair], lr=LEARNING_RATE, fused=True)
    inputs, target = torch.tensor(x), torch.tensor(labels)

    def loss_of(inputs, target):
        outputs = [inputs]
        for number, (weight, bias) in enumerate(pairs, 1):
            z = linear(outputs[-1], weight, bias)
            if has_skip(number, shape.depth):
                z = z + outputs[number - 2]
            outputs.append(torch.relu(z) if number < shape.depth else z)
        return cross_entropy(outputs[-1], target)

    run = torch.compile(loss_of, fullgraph=True) if compiled else loss_of

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = run(inputs, target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, lambda: pairs[0][0].detach().numpy().T
