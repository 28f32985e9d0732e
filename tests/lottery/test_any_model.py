"""Whatever fits the `Model` seam climbs: NNX modules, ResNets and Transformers among them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lth_jax import schema, trees
from lth_jax.data import indices
from lth_jax.lottery import (
    Ladder,
    Rewind,
    Seeds,
    Splits,
    Task,
    make_experiment,
    named,
    run_ladder,
)
from lth_jax.models import ResNet, as_model, conv_general_dilated, from_linen, from_nnx
from lth_jax.population import Plan, Trainer, correct, cross_entropy
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.prune import prune
from lth_jax.store import Store
from lth_jax.types import Batch
from tests.foreign import NETWORKS
from tests.thinning import sampled


class NNXBlock(nnx.Module):
    def __init__(self, n, width, stride, rngs):
        conv = functools.partial(
            nnx.Conv, use_bias=False, conv_general_dilated=conv_general_dilated, rngs=rngs
        )
        self.first, self.second = conv(n, width, (3, 3), stride), conv(width, width, (3, 3))
        self.norms = nnx.List([nnx.BatchNorm(width, rngs=rngs) for _ in range(2)])
        self.shortcut = conv(n, width, (1, 1), stride)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        h = self.dropout(nnx.relu(self.norms[0](self.first(x))))
        return nnx.relu(self.shortcut(x) + self.norms[1](self.second(h)))


class NNXResNet(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NNXBlock(1, 3, 1, rngs), NNXBlock(3, 4, 2, rngs)])
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean((1, 2)))


class NNXTransformer(nnx.Module):
    """One block over the rows of an image."""

    def __init__(self, rngs):
        self.embed = nnx.Linear(4, 6, rngs=rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (4, 6)))
        self.norms = nnx.List([nnx.LayerNorm(6, rngs=rngs) for _ in range(2)])
        self.attend = nnx.MultiHeadAttention(2, 6, dropout_rate=0.2, decode=False, rngs=rngs)
        self.hidden, self.back = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        h = self.embed(x[..., 0]) + self.positions
        h = h + self.attend(self.norms[0](h))
        h = h + self.dropout(self.back(nnx.gelu(self.hidden(self.norms[1](h)))))
        return self.out(h.mean(1))


def examples(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4, 4, 1)).astype(np.float32)
    return Batch(jnp.asarray(x), jnp.asarray(rng.integers(0, 3, n).astype(np.int32)))


def climbed(model, folder, rewind):
    trainer = Trainer(
        model=model,
        make_optimizer=lambda h: optax.adam(h["learning_rate"]),
        loss=cross_entropy,
        metrics={"loss": cross_entropy, "accuracy": correct},
        schedule=optax.constant_schedule(1.0),
        order=lambda key, step, n: indices(key, step, steps=n, batch_size=8, size=24),
        eval_every=2,
    )
    data = Splits(examples(0, 24), examples(1, 6), examples(2, 6))
    task = Task.from_parts(trainer, data, {"learning_rate": 1e-2}, 4)
    scope = scopes.globally(minimum=1)
    params, _ = task.shapes
    prunable = masks.prunable_leaves(params)
    ladder = Ladder(
        counts=[scope.counts(params, 0.4, prunable=prunable)],
        pruner=prune(criteria.magnitude(), scope),
        prunable=prunable,
        rewind=rewind,
        controls=named(["reinit", "shuffle", "random"]),
        stop=4,
        score_step=4,
    )
    store = Store(folder)
    cell = make_experiment(task, Seeds(jax.random.key(0), 2), ladder)
    [entries] = run_ladder([cell], store=store, plans=[(0, Plan(2))])
    return prunable, [schema.read_record(store, entry.key) for entry in entries]


STATISTICS = {"linen": "batch_stats/", "nnx": "norm/mean", "equinox": "state/",
              "haiku": "batch_norm/", "plain": "mean"}  # fmt: skip
MODELS = {  # and leaves of the state that training has to move
    **{name: (lambda f=f: as_model(f()), STATISTICS[name]) for name, f in NETWORKS.items()},
    "resnet": (
        lambda: from_linen(ResNet(blocks=(1,), width=4, classes=3, dropout=0.3)),
        "batch_stats/",
    ),
    "nnx_resnet": (lambda: from_nnx(NNXResNet), "blocks/1/norms/0/mean"),
    "nnx_transformer": (lambda: from_nnx(NNXTransformer), None),
}


SLOW = [
    ("nnx", "rewind"),
    ("resnet", "keep"),
    ("equinox", "rewind"),
    ("haiku", "keep"),
    ("linen", "rewind"),
    ("plain", "keep"),
]
MORE = [
    ("nnx_transformer", "rewind"),
    ("nnx_resnet", "keep"),
    ("resnet", "rewind"),
    ("nnx", "keep"),
]


@pytest.mark.parametrize(("name", "kept"), [*sampled(SLOW, 1), *sampled(MORE, 4)])
def test_a_network_climbs(tmp_path, name, kept):
    make, statistics = MODELS[name]
    rewind = Rewind(step=1, optimizer=kept, state=kept)
    prunable, nodes = climbed(make(), tmp_path, rewind)
    names = [
        n for n, may in zip(trees.names(prunable), jax.tree.leaves(prunable), strict=True) if may
    ]
    for node in nodes:
        assert np.isfinite(node.results["test_loss_final"]).all()
        state = node.points["end"].state
        moved = [n for n, v in state.items() if statistics and n.startswith(statistics) and v.any()]
        assert bool(moved) == bool(state)
        kept_weights = sum(
            node.mask[name].sum(axis=tuple(range(1, node.mask[name].ndim))) for name in names
        )
        assert len(set(kept_weights.tolist())) == 1
        for name in names:
            assert not node.points["end"].params[name][~node.mask[name]].any()
    # Two replicates draw their own dropout and their own weights.
    first, second = (trees.index(nodes[1].points["end"].params, r) for r in range(2))
    assert any((first[name] != second[name]).any() for name in names)
