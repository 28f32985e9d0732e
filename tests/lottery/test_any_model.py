"""Whatever fits the `Model` seam climbs: NNX modules, and ResNets with BatchNorm and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lth_jax import trees
from lth_jax.data import indices
from lth_jax.lottery import Cell, Data, Lab, Ladder, Rewind, climb, named
from lth_jax.models import ResNet, from_linen, from_nnx
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.prune import prune
from lth_jax.pruning.transforms import masked
from lth_jax.store import Store
from lth_jax.training import Plan, Trainer, correct, cross_entropy
from lth_jax.types import Batch


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(16, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        h = nnx.relu(self.norm(self.hidden(x.reshape(x.shape[0], -1))))
        return self.out(self.dropout(h))


def examples(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4, 4, 1)).astype(np.float32)
    return Batch(jnp.asarray(x), jnp.asarray(rng.integers(0, 3, n).astype(np.int32)))


def climbed(model, folder, rewind):
    trainer = Trainer(
        model=model,
        make_optimizer=lambda h: masked(optax.adam(h["learning_rate"])),
        loss=cross_entropy,
        metrics={"loss": cross_entropy, "accuracy": correct},
        schedule=optax.constant_schedule(1.0),
        order=lambda key, step, n: indices(key, step, steps=n, batch_size=8, size=24),
        steps=2,
    )
    lab = Lab(
        trainer,
        Data(examples(0, 24), examples(1, 6), examples(2, 6)),
        jax.random.key(0),
        2,
        {"learning_rate": 1e-2},
    )
    scope = scopes.globally(minimum=1)
    params, _ = jax.eval_shape(model.init, lab.root, lab.data.train.x[:1])
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
    cell = Cell(lab, ladder, {"trunk": {}, "ladder": {}})
    [entries] = climb([cell], store=store, plans=[(0, Plan(2))])
    return prunable, [store.read(entry.key) for entry in entries]


@pytest.mark.parametrize(
    ("model", "statistics"),
    [
        (lambda: from_nnx(Net), "norm/mean"),
        pytest.param(
            lambda: from_linen(ResNet(blocks=(1,), width=4, classes=3, dropout=0.3)),
            "batch_stats/",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["nnx", "resnet"],
)
@pytest.mark.parametrize("kept", ["rewind", "keep"])
def test_a_network_with_batch_norm_and_dropout_climbs(tmp_path, model, statistics, kept):
    rewind = Rewind(step=1, optimizer=kept, state=kept)
    prunable, nodes = climbed(model(), tmp_path, rewind)
    names = [
        n for n, may in zip(trees.names(prunable), jax.tree.leaves(prunable), strict=True) if may
    ]
    for node in nodes:
        assert np.isfinite(node.arrays["results"]["test_loss_final"]).all()
        state = node.arrays["end"]["state"]
        assert any(name.startswith(statistics) and np.abs(v).max() > 0 for name, v in state.items())
        kept_weights = sum(
            node.arrays["mask"][name].sum(axis=tuple(range(1, node.arrays["mask"][name].ndim)))
            for name in names
        )
        assert len(set(kept_weights.tolist())) == 1
        for name in names:
            assert not node.arrays["end"]["params"][name][~node.arrays["mask"][name]].any()
    # Two replicates draw their own dropout and their own weights.
    first, second = (trees.index(nodes[1].arrays["end"]["params"], r) for r in range(2))
    assert any((first[name] != second[name]).any() for name in names)
