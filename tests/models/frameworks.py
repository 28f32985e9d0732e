"""The same small networks in four frameworks, each with the result of the framework itself.

Every case is `(model, plain)`, where `plain(key, x, rng) -> (evaluated, trained)` is the
framework's own way from a key to the outputs of `x`, after initialisation with `example(x)`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from lth_jax.models import from_equinox, from_haiku, from_linen, from_nnx
from lth_jax.types import Model

N, TIME, WIDTH, LAYERS = 4, 3, 5, 3
RATE = 0.5
DRAWS = {"dropout", "stack", "recurrent_dropout"}
"""The cases that draw random numbers in training."""


class Case(NamedTuple):
    model: Model
    plain: Any
    same_draws: bool = True  # NNX modules draw from streams of their own


def example(x):
    """The batch that a network is initialised with: not that of which it is trained."""
    return 2 * x + 1


# Linen


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        h = nn.Dropout(RATE, deterministic=not train)(nn.Dense(WIDTH)(x))
        return x + jnp.tanh(h)


class LinenStep(nn.Module):
    """A recurrent step with dropout on its input, scanned over time with shared weights."""

    train: bool

    @nn.compact
    def __call__(self, carry, x):
        x = nn.Dropout(RATE, deterministic=not self.train)(x)
        carry, _ = nn.SimpleCell(WIDTH)(carry, x)
        return carry, x


class LinenNet(nn.Module):
    case: str

    @nn.compact
    def __call__(self, x, train):
        last = x[:, -1]
        if self.case == "plain":
            h = nn.relu(nn.Dense(WIDTH)(last))
        elif self.case == "batch_norm":
            h = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(WIDTH)(last))
        elif self.case == "dropout":
            h = nn.Dropout(RATE, deterministic=not train)(nn.Dense(WIDTH)(last))
        elif self.case == "recurrent":
            h = nn.RNN(nn.LSTMCell(WIDTH))(x)[:, -1]
        elif self.case == "recurrent_dropout":
            rngs = {"params": False, "dropout": True}
            scan = nn.scan(
                LinenStep, variable_broadcast="params", split_rngs=rngs, in_axes=1, out_axes=1
            )
            h, _ = scan(train)(jnp.zeros((len(x), WIDTH)), x)
        elif self.case == "stack":
            step = nn.scan(
                lambda block, h, _: (block(h, train), None),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                length=LAYERS,
            )
            h, _ = step(LinenBlock(), nn.Dense(WIDTH)(last), None)
        else:
            h = nn.jit(nn.Dense)(WIDTH)(nn.remat(nn.Dense)(WIDTH)(last))
        return nn.Dense(2)(h)


def linen(case):
    module = LinenNet(case)

    def plain(key, x, rng):
        variables = module.init(key, example(x), False)
        trained, _ = module.apply(variables, x, True, rngs={"dropout": rng}, mutable="batch_stats")
        return module.apply(variables, x, False), trained

    return Case(from_linen(module), plain)


# NNX


class NNXBlock(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(RATE, rngs=rngs)

    def __call__(self, x):
        return x + jnp.tanh(self.dropout(self.dense(x)))


class NNXCompiled(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return nnx.remat(lambda dense, x: jnp.tanh(dense(x)))(self.dense, x)


class NNXNet(nnx.Module):
    def __init__(self, case, rngs):
        self.case = case
        self.dense, self.out = nnx.Linear(4, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 2, rngs=rngs)
        if case == "batch_norm":
            self.norm = nnx.BatchNorm(WIDTH, momentum=0.5, rngs=rngs)
        elif case == "dropout":
            self.dropout = nnx.Dropout(RATE, rngs=rngs)
        elif case in ("recurrent", "recurrent_dropout"):
            self.rnn = nnx.RNN(nnx.LSTMCell(4, WIDTH, rngs=rngs), rngs=rngs)
            self.dropout = nnx.Dropout(RATE, rngs=rngs)
        elif case == "stack":
            make = nnx.split_rngs(splits=LAYERS)(nnx.vmap(NNXBlock, axis_size=LAYERS))
            self.blocks = make(rngs)
        elif case == "compiled":
            self.block = NNXCompiled(rngs)

    def __call__(self, x):
        last = self.dense(x[:, -1])
        if self.case == "plain":
            h = nnx.relu(last)
        elif self.case == "batch_norm":
            h = self.norm(last)
        elif self.case == "dropout":
            h = self.dropout(last)
        elif self.case == "recurrent":
            h = self.rnn(x)[:, -1]
        elif self.case == "recurrent_dropout":
            h = self.rnn(self.dropout(x))[:, -1]
        elif self.case == "stack":
            h, _ = nnx.scan(lambda h, block: (block(h), None))(last, self.blocks)
        else:
            h = self.block(last)
        return self.out(h)


def nnx_(case):
    def plain(key, x, rng):
        module = NNXNet(case, nnx.Rngs(key))
        module.eval()
        evaluated = module(x)
        module.train()
        return evaluated, module(x)

    return Case(from_nnx(lambda rngs: NNXNet(case, rngs)), plain, same_draws=False)


# Equinox


class EquinoxBlock(eqx.Module):
    dense: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.dense, self.dropout = eqx.nn.Linear(WIDTH, WIDTH, key=key), eqx.nn.Dropout(RATE)

    def __call__(self, x, key):
        return x + jnp.tanh(self.dropout(self.dense(x), key=key))


class EquinoxNet(eqx.Module):
    dense: eqx.nn.Linear
    out: eqx.nn.Linear
    part: Any
    dropout: eqx.nn.Dropout
    case: str = eqx.field(static=True)

    def __init__(self, case, key):
        a, b, c = jax.random.split(key, 3)
        self.dense, self.out = eqx.nn.Linear(4, WIDTH, key=a), eqx.nn.Linear(WIDTH, 2, key=b)
        self.dropout, self.case, self.part = eqx.nn.Dropout(RATE), case, None
        if case == "batch_norm":
            self.part = eqx.nn.BatchNorm(WIDTH, axis_name="examples", momentum=0.5, mode="batch")
        elif case in ("recurrent", "recurrent_dropout"):
            self.part = eqx.nn.GRUCell(4, WIDTH, key=c)
        elif case == "stack":
            self.part = eqx.filter_vmap(EquinoxBlock)(jax.random.split(c, LAYERS))
        elif case == "compiled":
            self.part = eqx.nn.Linear(WIDTH, WIDTH, key=c)

    def __call__(self, x, *, key=None):
        last = self.dense(x[-1])
        if self.case == "plain":
            h = jax.nn.relu(last)
        elif self.case == "dropout":
            h = self.dropout(last, key=key)
        elif self.case in ("recurrent", "recurrent_dropout"):
            if self.case == "recurrent_dropout":
                x = self.dropout(x, key=key)
            h, _ = jax.lax.scan(lambda h, x: (self.part(x, h), None), jnp.zeros(WIDTH), x)
        elif self.case == "stack":
            arrays, rest = eqx.partition(self.part, eqx.is_array)
            keys = None if key is None else jax.random.split(key, LAYERS)
            h, _ = jax.lax.scan(
                lambda h, one: (eqx.combine(one[0], rest)(h, one[1]), None), last, (arrays, keys)
            )
        else:
            h = eqx.filter_checkpoint(eqx.filter_jit(self.part))(last)
        return self.out(h)


class EquinoxNormed(EquinoxNet):
    def __call__(self, x, state):
        h, state = self.part(self.dense(x[-1]), state)
        return self.out(h), state


def equinox(case):
    stateful = case == "batch_norm"

    def make(key):
        if stateful:
            return eqx.nn.make_with_state(EquinoxNormed)(case, key)
        return EquinoxNet(case, key)

    def plain(key, x, rng):
        module, *state = make(key) if stateful else (make(key),)
        evaluated = eqx.nn.inference_mode(module)
        if stateful:
            over = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "examples"}
            return jax.vmap(evaluated, **over)(x, *state)[0], jax.vmap(module, **over)(x, *state)[0]
        keys = jax.random.split(rng, len(x))
        return jax.vmap(evaluated)(x), jax.vmap(lambda x, key: module(x, key=key))(x, keys)

    return Case(from_equinox(make), plain)


# Haiku


def haiku_net(case):
    def dropped(x, is_training):
        return hk.dropout(hk.next_rng_key(), RATE, x) if is_training else x

    def net(x, is_training):
        last = hk.Linear(WIDTH)(x[:, -1])
        if case == "plain":
            h = jax.nn.relu(last)
        elif case == "batch_norm":
            h = hk.BatchNorm(True, True, decay_rate=0.5)(last, is_training)
        elif case == "dropout":
            h = dropped(last, is_training)
        elif case in ("recurrent", "recurrent_dropout"):
            if case == "recurrent_dropout":
                x = dropped(x, is_training)
            core = hk.LSTM(WIDTH)
            h, _ = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)
            h = h[:, -1]
        elif case == "stack":

            @hk.experimental.layer_stack(LAYERS)
            def blocks(h):
                return h + jnp.tanh(dropped(hk.Linear(WIDTH)(h), is_training))

            h = blocks(last)
        else:
            h = hk.remat(lambda h: jax.jit(jnp.tanh)(hk.Linear(WIDTH)(h)))(last)
        return hk.Linear(2)(h)

    return net


def haiku(case):
    with_state = case == "batch_norm"
    transformed = (hk.transform_with_state if with_state else hk.transform)(haiku_net(case))

    def plain(key, x, rng):
        if with_state:
            params, state = transformed.init(key, example(x), True)
            both = (transformed.apply(params, state, rng, x, train) for train in (False, True))
            return tuple(out for out, _ in both)
        params = transformed.init(key, example(x), True)
        return tuple(transformed.apply(params, rng, x, train) for train in (False, True))

    return Case(from_haiku(transformed), plain)


FRAMEWORKS = {"linen": linen, "nnx": nnx_, "equinox": equinox, "haiku": haiku}
CASES = ("plain", "batch_norm", "dropout", "recurrent", "recurrent_dropout", "stack", "compiled")
