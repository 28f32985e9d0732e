"""The main job written by hand in JAX: the same ladder without store and report.

    python -m experiments.benchmarks.expert DATA.npz [--vmap] [--smoke]

One process with one virtual device per core; each device trains its members one after the other.
With `--vmap`, one `vmap` over all members. Uses only JAX and optax. The last line is the test
accuracy by arm and level.
"""

import argparse
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, PartitionSpec

Tree = list[dict[str, jax.Array]]

REPLICATES, BATCH, LEARNING_RATE = 5, 100, 1e-2
ARMS = ("ticket", "reinit", "shuffle", "random")


def init(key: jax.Array, width: int) -> Tree:
    """A residual MLP 40-width-width-10 with PyTorch's initial values."""
    layers = []
    for i, (fan_in, out) in enumerate([(40, width), (width, width), (width, 10)]):
        w, b = jax.random.split(jax.random.fold_in(key, i))
        bound = fan_in**-0.5
        layers.append(
            {
                "w": jax.random.uniform(w, (fan_in, out), minval=-bound, maxval=bound),
                "b": jax.random.uniform(b, (out,), minval=-bound, maxval=bound),
            }
        )
    return layers


def forward(params: Tree, x: jax.Array) -> jax.Array:
    first, second, last = params
    h = jax.nn.relu(x @ first["w"] + first["b"])
    h = h + jax.nn.relu(h @ second["w"] + second["b"])
    return h @ last["w"] + last["b"]


def loss_of(params: Tree, x: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(forward(params, x), y).mean()


def accuracy(params: Tree, x: jax.Array, y: jax.Array) -> jax.Array:
    return (forward(params, x).argmax(-1) == y).mean()


def masked(tree: Tree, mask: Tree) -> Tree:
    return jax.tree.map(jnp.multiply, tree, mask)


def make_train(data: dict[str, jax.Array], steps: int, every: int):
    """`(params, mask, key) -> (params, test accuracy)` of one member, with validation."""
    optimizer = optax.adam(LEARNING_RATE)
    x, y = data["train_x"], data["train_y"]
    epoch = len(x) // BATCH

    def step(carry, i):
        params, mask, state, key, order = carry
        order = jax.lax.cond(
            i % epoch == 0,
            lambda: jax.random.permutation(jax.random.fold_in(key, i), len(x)),
            lambda: order,
        )
        rows = jax.lax.dynamic_slice_in_dim(order, i % epoch * BATCH, BATCH)
        grads = jax.grad(loss_of)(params, x[rows], y[rows])
        updates, state = optimizer.update(masked(grads, mask), state, params)
        params = optax.apply_updates(params, masked(updates, mask))
        return (params, mask, state, key, order), None

    def segment(carry, first):
        carry, _ = jax.lax.scan(step, carry, first + jnp.arange(every))
        validation = data["validation_x"], data["validation_y"]
        return carry, (loss_of(carry[0], *validation), accuracy(carry[0], *validation))

    def train(params, mask, key):
        params = masked(params, mask)
        carry: Any = (params, mask, optimizer.init(params), key, jnp.zeros(len(x), int))
        (params, *_), history = jax.lax.scan(segment, carry, jnp.arange(0, steps, every))
        return params, accuracy(params, data["test_x"], data["test_y"]), history

    return train


def over_members(train, vmap: bool):
    """`train` for a population: one after the other on a device per core, or one `vmap`."""
    if vmap:
        return jax.jit(jax.vmap(train))
    mesh = jax.make_mesh((len(jax.devices()),), ("members",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("members")

    def one_by_one(*members):
        return jax.lax.map(lambda one: train(*one), members)

    sharded = jax.shard_map(one_by_one, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return jax.jit(sharded)


def pruned(params: Tree, mask: Tree, kept: float) -> Tree:
    """Keeps the fraction `kept` of largest magnitude of the remaining weights; biases are kept."""
    scores = [jnp.where(m["w"] > 0, jnp.abs(p["w"]), -1) for p, m in zip(params, mask, strict=True)]
    left = sum(m["w"].sum() for m in mask)
    ranked = jnp.sort(jnp.concatenate([s.ravel() for s in scores]))
    threshold = ranked[ranked.size - jnp.round(left * kept).astype(int)]
    return [
        {"w": (s >= threshold).astype(jnp.float32), "b": m["b"]}
        for s, m in zip(scores, mask, strict=True)
    ]


def shuffled(mask: Tree, key: jax.Array) -> Tree:
    """Each layer's mask in another order."""
    return [
        {**m, "w": jax.random.permutation(k, m["w"].ravel()).reshape(m["w"].shape)}
        for m, k in zip(mask, jax.random.split(key, len(mask)), strict=True)
    ]


def drawn(mask: Tree, key: jax.Array) -> Tree:
    """A random mask of the whole network with the same number of weights."""
    shapes = [m["w"].shape for m in mask]
    flat = jax.random.permutation(key, jnp.concatenate([m["w"].ravel() for m in mask]))
    parts = jnp.split(flat, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
    return [
        {**m, "w": part.reshape(shape)} for m, part, shape in zip(mask, parts, shapes, strict=True)
    ]


def run() -> None:
    """Runs the ladder and prints accuracies in percent."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--vmap", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    width, steps, every, levels, rate = (
        (32, 100, 100, 2, 0.6) if options.smoke else (200, 1000, 50, 7, 0.42)
    )
    if not options.vmap:
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    data = {name: jnp.asarray(array) for name, array in np.load(options.data).items()}
    train = over_members(make_train(data, steps, every), options.vmap)
    devices = 1 if options.vmap else len(jax.devices())
    keys = jax.random.split(jax.random.key(0), REPLICATES)
    draw = jax.jit(jax.vmap(lambda key: init(key, width)))

    @jax.jit
    @jax.vmap
    def arms(params, mask, origin, key):
        mask = pruned(params, mask, 1 - rate)
        fresh, layers, whole = jax.random.split(key, 3)
        masks = [mask, mask, shuffled(mask, layers), drawn(mask, whole)]
        starts = [origin, init(fresh, width), origin, origin]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *masks
        )

    def flat(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

    def padded(tree):
        rows = np.arange(-(-REPLICATES // devices) * devices) % REPLICATES
        return jax.tree.map(lambda leaf: leaf[rows], tree)

    origin = draw(keys)
    mask = jax.tree.map(jnp.ones_like, origin)
    # On the host: XLA:CPU (jaxlib 0.10.2) may deadlock in collectives between virtual devices.
    params, found, _ = jax.device_get(train(*map(padded, (origin, mask, keys))))
    params = jax.tree.map(lambda leaf: leaf[:REPLICATES], params)
    table = {"dense": [float(100 * found[:REPLICATES].mean())]}
    for level in range(levels):
        fold = jax.vmap(lambda key, level=level: jax.random.fold_in(key, level))
        starts, masks = arms(params, mask, origin, fold(keys))
        members = flat(starts), flat(masks), jnp.repeat(keys, len(ARMS), axis=0)
        trained, found, _ = jax.device_get(train(*members))
        params, mask = (
            jax.tree.map(lambda leaf: leaf.reshape(REPLICATES, len(ARMS), *leaf.shape[1:])[:, 0], t)
            for t in (trained, flat(masks))
        )
        by_arm = 100 * np.asarray(found).reshape(REPLICATES, len(ARMS)).mean(axis=0)
        for arm, value in zip(ARMS, by_arm, strict=True):
            table.setdefault(arm, []).append(float(value))
    print(table)


if __name__ == "__main__":
    run()
