"""Generated sequences whose best answer is known exactly; tokens are int32 `(n, time)`.

Every maker takes `data_seed` and the numbers `train` and `test` of examples.
"""

import numpy as np
from numpy.typing import NDArray

from lth_jax.data.checks import check_integer, check_real
from lth_jax.data.made import Examples, Made, split
from lth_jax.keys import check_seed


def modular_addition(*, modulus: int = 31, train: int = 600, data_seed: int = 0) -> Made:
    """All pairs as `a b =`; the answer is `(a + b) mod p` (Power et al., 2022, "Grokking").

    Inputs are `(3,)` over p + 1 tokens, of which p is the sign `=`; the answer is one class of p.
    All other pairs are the test set, so accuracy 1 means that the rule was found.

    Args:
      modulus: p.
      train: number of the p² pairs in the training set.
      data_seed: selects them.

    >>> made = modular_addition(modulus=5, train=20)
    >>> a, b, equals = made.test.x.T
    >>> len(made.test.y), bool(np.all((a + b) % 5 == made.test.y)), set(equals.tolist())
    (5, True, {5})
    """
    check_integer("modulus", modulus, 2, 2**15)
    check_integer("train", train, 1, modulus**2 - 1)
    check_seed(data_seed, "data_seed")
    a, b = np.divmod(np.arange(modulus**2, dtype=np.int32), np.int32(modulus))
    x = np.stack([a, b, np.full_like(a, modulus)], axis=1)
    whole = Examples(x, (a + b) % modulus)
    return Made(*split(whole, test=modulus**2 - train, seed=data_seed), classes=modulus)


def copy(
    *,
    symbols: int = 8,
    length: int = 5,
    delay: int = 5,
    train: int = 5000,
    test: int = 1000,
    data_seed: int = 0,
) -> Made:
    """Repeating a word after a delay (Hochreiter and Schmidhuber, 1997; Arjovsky et al., 2016).

    Inputs: `length` symbols, `delay − 1` blanks, the start sign, `length` blanks. Targets: `delay +
    length` blanks, then the word. Blank is token `symbols`, the sign `symbols + 1`. The best mean
    loss is 0; without memory it is `length · ln(symbols) / (delay + 2 · length)`.

    Args:
      symbols: number of symbols of the words.
      length: length of a word.
      delay: number of steps between the word and its repetition.
      train: number of training examples.
      test: number of test examples.
      data_seed: seed of the words.

    >>> copy(symbols=2, length=2, delay=2, train=1, test=1).train.x.shape
    (1, 6)
    """
    _check(train, test, data_seed, symbols=(symbols, 2), length=(length, 1), delay=(delay, 1))
    blank, go = symbols, symbols + 1
    word = np.random.default_rng(data_seed).integers(symbols, size=(train + test, length))
    x = np.full((train + test, delay + 2 * length), blank, np.int32)
    y = x.copy()
    x[:, :length], y[:, -length:] = word, word
    x[:, length + delay - 1] = go
    return _in_two(x, y, train, classes=symbols + 2)


def delayed_recall(
    *, symbols: int = 8, delay: int = 20, train: int = 5000, test: int = 1000, data_seed: int = 0
) -> Made:
    """Naming the first symbol after `delay` random ones (after Bengio, Simard and Frasconi, 1994).

    Inputs are `(delay + 1,)` over `symbols` tokens; the answer is the first of them. The rest of
    the sequence is not informative: without that symbol, the best accuracy is 1 / `symbols`.

    Args:
      symbols: number of symbols.
      delay: number of symbols after the first.
      train: number of training examples.
      test: number of test examples.
      data_seed: seed of the sequences.

    >>> made = delayed_recall(symbols=3, delay=4, train=2, test=1)
    >>> made.train.x.shape, bool(np.all(made.train.x[:, 0] == made.train.y))
    ((2, 5), True)
    """
    _check(train, test, data_seed, symbols=(symbols, 2), delay=(delay, 0))
    x = np.random.default_rng(data_seed).integers(
        symbols, size=(train + test, delay + 1), dtype=np.int32
    )
    return _in_two(x, x[:, 0], train, classes=symbols)


def associative_recall(
    *,
    keys: int = 8,
    values: int = 8,
    pairs: int = 4,
    train: int = 5000,
    test: int = 1000,
    data_seed: int = 0,
) -> Made:
    """Pairs of keys and values, then a key, whose value is the target (Ba et al., 2016).

    Inputs are `(2 · pairs + 1,)`: `key value key value … key`. The keys of a sequence differ;
    values are tokens `0 … values − 1`, keys the following ones. The answer is a value.

    Args:
      keys: number of keys.
      values: number of values.
      pairs: pairs in a sequence, at most `keys`.
      train: number of training examples.
      test: number of test examples.
      data_seed: seed of the sequences.

    >>> made = associative_recall(keys=3, values=2, pairs=3, train=4, test=1)
    >>> made.train.x.shape, made.classes
    ((4, 7), 2)
    """
    sizes = {"keys": (keys, 1), "values": (values, 2), "pairs": (pairs, 1)}
    _check(train, test, data_seed, **sizes)
    if pairs > keys:
        raise ValueError(f"`pairs` must be at most the {keys} `keys`, got {pairs}.")
    rng, n = np.random.default_rng(data_seed), train + test
    shown = rng.permuted(np.tile(np.arange(keys), (n, 1)), axis=1)[:, :pairs] + values
    held = rng.integers(values, size=(n, pairs))
    asked = rng.integers(pairs, size=n)
    rows = np.arange(n)
    x = np.stack([shown, held], axis=2).reshape(n, 2 * pairs)
    x = np.concatenate([x, shown[rows, asked, None]], axis=1)
    return _in_two(x, held[rows, asked], train, classes=values)


def marked_recall(
    *, symbols: int = 8, length: int = 16, train: int = 5000, test: int = 1000, data_seed: int = 0
) -> Made:
    """Naming the marked symbol of a sequence: the simplest task of attention.

    Inputs are `(length,)` over `2 · symbols` tokens, of which s is the symbol s without the mark
    and s + `symbols` with it. Each sequence has one mark, at a random position, and the answer is
    its symbol. So exactly one key is relevant.

    Args:
      symbols: number of symbols.
      length: length of a sequence.
      train: number of training examples.
      test: number of test examples.
      data_seed: seed of the sequences.

    >>> made = marked_recall(symbols=3, length=4, train=2, test=1)
    >>> marked = made.train.x >= 3
    >>> marked.sum(axis=1).tolist(), bool(np.all(made.train.x[marked] - 3 == made.train.y))
    ([1, 1], True)
    """
    _check(train, test, data_seed, symbols=(symbols, 2), length=(length, 1))
    rng, n = np.random.default_rng(data_seed), train + test
    x = rng.integers(symbols, size=(n, length), dtype=np.int32)
    rows, place = np.arange(n), rng.integers(length, size=n)
    y = x[rows, place]
    x[rows, place] += np.int32(symbols)
    return _in_two(x, y, train, classes=symbols)


def markov(
    *,
    states: int = 8,
    length: int = 32,
    concentration: float = 0.3,
    train: int = 2000,
    test: int = 500,
    data_seed: int = 0,
) -> Made:
    """A stationary Markov chain; every step's target is the next state.

    No model has a smaller mean loss than the chain's entropy rate, `entropy_rate(transitions(…))`.

    Args:
      states: number of states.
      length: number of predicted steps.
      concentration: see `transitions`.
      train: number of training sequences.
      test: number of test sequences.
      data_seed: seed of the chain and the sequences.

    >>> markov(states=3, length=4, train=2, test=1).train.y.shape
    (2, 4)
    """
    _check(train, test, data_seed, states=(states, 2), length=(length, 1))
    chain = transitions(states=states, concentration=concentration, data_seed=data_seed)
    uniform = np.random.default_rng([data_seed, 1]).random((length + 1, train + test))
    path = np.empty((length + 1, train + test), np.int32)
    path[0] = _draw(np.broadcast_to(stationary(chain), (train + test, states)), uniform[0])
    for t in range(length):
        path[t + 1] = _draw(chain[path[t]], uniform[t + 1])
    return _in_two(path[:-1].T, path[1:].T, train, classes=states)


def transitions(
    *, states: int = 8, concentration: float = 0.3, data_seed: int = 0
) -> NDArray[np.float64]:
    """The transition matrix of `markov`: each row is drawn from a symmetric Dirichlet.

    Args:
      states: number of states.
      concentration: the Dirichlet's parameter: small for nearly deterministic, large for nearly
        uniform rows.
      data_seed: seed of the rows.

    Returns:
      float64 `[states, states]`; entry `[i, j]` is the probability of j after i.

    >>> transitions(states=4).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    check_seed(data_seed, "data_seed")
    check_real("concentration", concentration, 1e-2, 1e6)
    rows = np.random.default_rng(data_seed).dirichlet(np.full(states, concentration), size=states)
    smoothed = rows + 1e-6  # all transitions are possible, so the stationary distribution is unique
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def stationary(chain: NDArray) -> NDArray[np.float64]:
    """The distribution π with `π P = π`, unique if P is positive.

    >>> stationary(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4).tolist()
    [0.6667, 0.3333]
    """
    states = len(chain)
    system = np.vstack([chain.T - np.eye(states), np.ones(states)])
    return np.linalg.lstsq(system, np.append(np.zeros(states), 1.0), rcond=None)[0]


def entropy_rate(chain: NDArray) -> float:
    """The entropy of a stationary chain per step, `−Σᵢ πᵢ Σⱼ Pᵢⱼ ln Pᵢⱼ`, in nats (Shannon, 1948).

    >>> f"{entropy_rate(np.full((4, 4), 0.25)) / np.log(2):.4f} bits"
    '2.0000 bits'
    """
    logs = np.log(chain, out=np.zeros_like(chain), where=chain > 0)
    return float(-stationary(chain) @ np.sum(chain * logs, axis=1))


def _draw(probabilities: NDArray, uniform: NDArray) -> NDArray:
    """Draws one state per row by inverting the distribution function."""
    below = np.cumsum(probabilities, axis=1) < uniform[:, None]
    return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1)


def _in_two(x: NDArray, y: NDArray, train: int, *, classes: int) -> Made:
    x, y = x.astype(np.int32), y.astype(np.int32)
    return Made(Examples(x[:train], y[:train]), Examples(x[train:], y[train:]), classes)


def _check(train: int, test: int, data_seed: int, **sizes: tuple[int, int]) -> None:
    check_seed(data_seed, "data_seed")
    least = {"train": (train, 1), "test": (test, 1), **sizes}
    for name, (value, low) in least.items():
        check_integer(name, value, low)
