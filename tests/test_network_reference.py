"""200 random topologies of every kind against tests/reference.py, in both precisions."""

from functools import lru_cache

import pytest

from comparison import (
    BOUND,
    OPTIMIZERS,
    assert_within,
    first_clear_case,
    our_gradients,
    our_weights,
    torch_gradients,
    torch_weights,
    true_gradients,
    true_weights,
    worst_errors,
)

SEEDS = range(200)
STEPS = 5
# An optimizer's rule knows nothing of topologies: some are trained by every one, each of the others by the next in turn.
TRAINED = [
    (seed, name)
    for seed in SEEDS
    for turn, name in enumerate(OPTIMIZERS)
    if seed < 40 or seed % len(OPTIMIZERS) == turn
]


@lru_cache(maxsize=1)
def gradients(seed):
    return first_clear_case(true_gradients, seed)


@lru_cache(maxsize=1)
def weights(seed, optimizer):
    ours, settings = OPTIMIZERS[optimizer]
    return first_clear_case(lambda case: true_weights(case, settings, ours.lr, 7, STEPS), seed)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("seed", SEEDS)
def test_outputs_and_gradients(seed, dtype):
    case, exact = gradients(seed)

    def theirs():
        return worst_errors(lambda order: torch_gradients(case, dtype, order), case, exact)

    assert_within(our_gradients(case, dtype), exact, BOUND[dtype], theirs)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("seed, optimizer", TRAINED)
def test_five_steps(seed, optimizer, dtype):
    case, exact = weights(seed, optimizer)
    ours, settings = OPTIMIZERS[optimizer]

    def theirs():
        return worst_errors(lambda o: torch_weights(case, dtype, settings, ours.lr, 7, STEPS, o), case, exact)

    assert_within(our_weights(case, dtype, ours, 7, STEPS), exact, BOUND[dtype], theirs)
