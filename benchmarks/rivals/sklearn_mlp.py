"""scikit-learn's MLPClassifier: the plain network of the same depth and width, for it has neither skips nor norms.

It is beside the others for scale: less is computed, by other weights, so nothing can be compared with it.
"""

from __future__ import annotations

from sklearn.neural_network import MLPClassifier
from threadpoolctl import ThreadpoolController

from ..networks import OPTIMIZERS
from ..shapes import CLASSES
from . import Unable


def build(case, problem, threads):
    if case.variant != "identity":
        raise Unable("measured beside the network with identity skips alone")
    if case.precision != "float32":
        raise Unable("has no bfloat16")
    if case.mode == "train" and case.optimizer == "adamw":
        raise Unable("has no AdamW")
    numbers = OPTIMIZERS[case.optimizer]
    model = MLPClassifier(
        hidden_layer_sizes=(case.shape.width,) * (case.shape.depth - 1),
        activation="relu",
        solver="sgd",
        learning_rate_init=numbers["lr"],
        momentum=numbers.get("momentum", 0.0),
        nesterovs_momentum=False,
        alpha=0.0,
        batch_size=case.shape.batch,  # rows in a call: one call is one step
        shuffle=False,  # no copy of the batch
        random_state=0,
    )
    # Only its BLAS: PyTorch's threads, which the others share this process with, are set by PyTorch's own side.
    ThreadpoolController().select(user_api="blas").limit(limits=threads)
    model.partial_fit(problem.x, problem.labels, classes=range(CLASSES))
    if case.mode == "infer":
        return lambda: model.predict_proba(problem.x), dict

    def step():
        model.partial_fit(problem.x, problem.labels)
        return model.loss_

    return step, dict
