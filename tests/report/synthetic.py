"""A made-up run with the shape of a real one, for tests that read and draw."""

import numpy as np

from lth_jax import schema, store
from lth_jax.report.run_summary import summarize_run
from lth_jax.types import TrainState

ARMS = ("ticket", "reinit", "shuffle", "random")
LEAVES = {"Dense_0/kernel": (40, 50), "Dense_1/kernel": (50, 30), "Dense_2/kernel": (30, 10)}
BIAS = "Dense_0/bias"
# Weights fall faster in the large layers, as with a global magnitude criterion.
SPEED = {"Dense_0/kernel": 1.15, "Dense_1/kernel": 1.0, "Dense_2/kernel": 0.5}
DROP = {"dense": 0.0, "ticket": 0.02, "reinit": 0.06, "shuffle": 0.1, "random": 0.13}


def ladder(*, levels=6, replicates=5, rate=0.4, evaluations=12, diverged=(), seed=0):
    """The nodes of a run: level 0 with the dense networks, then `levels` with every arm.

    Args:
      levels: how many pruned levels.
      replicates: how many seeds.
      rate: fraction pruned per level.
      evaluations: points of each training curve.
      diverged: `(level, arm, replicate)` of members whose numbers are NaN.
      seed: of everything random in here.
    """
    rng = np.random.default_rng(seed)
    nodes = []
    for level in range(levels + 1):
        arms = ("dense",) if level == 0 else ARMS
        members = [(arm, replicate) for arm in arms for replicate in range(replicates)]
        dead = [i for i, m in enumerate(members) if (level, *m) in set(diverged)]
        nodes.append(_node(rng, level, rate, members, dead, evaluations))
    return nodes


def _node(rng, level, rate, members, dead, evaluations):
    mask = {BIAS: np.ones((len(members), 50), bool)}
    for name, shape in LEAVES.items():
        importance = rng.random(shape)
        noise = rng.random((len(members), *shape))
        blind = np.array([arm == "random" for arm, _ in members]).reshape(-1, 1, 1)
        scores = np.where(blind, noise, importance + 0.6 * noise)
        keep = max(1, round((1 - rate) ** (level * SPEED[name]) * scores[0].size))
        rank = scores.reshape(len(members), -1).argsort(axis=1).argsort(axis=1)
        mask[name] = (rank < keep).reshape(scores.shape)
    kept = sum(int(mask[name][0].sum()) for name in LEAVES)
    density = kept / sum(int(np.prod(shape)) for shape in LEAVES.values())
    results, history = _numbers(rng, density, members, evaluations)
    for values in (*results.values(), *history.values()):
        values[..., dead] = np.nan
    facts = schema.NodeFacts(
        level=level,
        members=tuple(
            schema.MemberRecord(
                key=store.content_key([level, arm, replicate]),
                arm=arm,
                replicate=replicate,
                density=density,
                diverged_at=300 if i in dead else None,
            )
            for i, (arm, replicate) in enumerate(members)
        ),
        leaves=(
            schema.LeafRecord(BIAS, (50,), False),
            *(schema.LeafRecord(name, shape, True) for name, shape in LEAVES.items()),
        ),
        steps=1500,
        seconds=3.2 + level,
    )
    steps = np.linspace(125, 1500, evaluations).astype(np.int32)
    values = {k: rng.normal(size=m.shape).astype(np.float32) for k, m in mask.items()}
    points = {"end": TrainState({k: v * mask[k] for k, v in values.items()}, {}, {})}
    if level == 0:
        points["rewound"] = TrainState({k: v / 2 for k, v in values.items()}, {}, {})
    return schema.NodeRecord(facts, results, steps, history, mask, points)


def _numbers(rng, density, members, evaluations):
    n = len(members)
    drop = np.array([DROP[arm] for arm, _ in members])
    hardship = np.log(1 / density) ** 1.6
    accuracy = 0.66 + 0.05 * (1 - np.exp(-3 * (1 - density))) - drop * hardship * 0.4
    accuracy += 0.012 * rng.normal(size=n)
    loss = 2.2 * (1 - accuracy) + 0.05 * rng.normal(size=n) ** 2
    stop = 500 * (1 + 8 * drop * hardship**0.5) * np.exp(0.1 * rng.normal(size=n))
    time = np.linspace(0.1, 1, evaluations)[:, None]
    rise = 1 - 0.7 * np.exp(-5 * time / (1 + 8 * drop))
    jitter = 0.01 * rng.normal(size=(evaluations, n))
    results = {
        "test_accuracy_final": accuracy,
        "test_accuracy_early_stop": accuracy + 0.01 + 0.004 * rng.normal(size=n),
        "test_loss_final": loss,
        "test_loss_early_stop": 0.85 * loss,
        "train_loss_final": 0.2 * loss,
        "early_stop_step": stop,
    }
    history = {
        "train_loss": loss * (1.6 - 1.4 * rise) + jitter,
        "validation_loss": loss * (2 - rise) + jitter,
        "validation_accuracy": accuracy * rise + jitter,
    }
    return (
        {k: v.astype(np.float32) for k, v in results.items()},
        {k: v.astype(np.float32) for k, v in history.items()},
    )


def rates(levels=4, replicates=5):
    """Rows of a made-up frontier: thinner and coarser is smaller and less accurate."""
    rows = []
    for level in range(levels + 1):
        for precision, bits, scales, loss in (
            ("float32", 32, "tensor", 0.0),
            ("int4", 4, "tensor", 0.03),
            ("int4", 4.4, "channel", 0.02),
        ):
            density, mean = 0.5**level, 0.7 - loss - 0.01 * level**2
            size = 12_000 * (density * bits + (level > 0)) / 8 + 2_000
            rows.append(
                {
                    "arm": "ticket" if level else "dense",
                    "level": level,
                    "density": density,
                    "precision": precision,
                    "scales": scales,
                    "file_bytes": size,
                    "mean": mean,
                    "low": mean - 0.02 if replicates > 1 else None,
                    "high": mean + 0.02 if replicates > 1 else None,
                    "replicates": replicates,
                    "values": [mean] * replicates,
                    "frontier": precision == "int4" and scales == "tensor",
                }
            )
    return rows


def write(root, *, nodes=None, config=None, env=None, finish=True):
    """Writes a run with these nodes into a store, as the laboratory does, and returns its info."""
    shelf = store.Store(root)
    config = {"dataset": "mnist1d", "levels": 6} if config is None else config
    env = store.environment() | (env or {})
    with store.open_run(root, name="ladder", config=config, env=env) as run:
        run.record_plan({"chunk": 20, "driver": "vmap"})
        for record in ladder() if nodes is None else nodes:
            level, members = record.facts.level, record.facts.members
            node = schema.to_node(record)
            key = store.content_key([config, node.meta])
            shelf.node(key, lambda _, node=node: node)
            arms, rows = sorted({member.arm for member in members}), list(range(len(members)))
            run.add(**schema.LevelEntry(key, level, arms, rows, 0, 0)._asdict())
        if finish:
            run.finish(summarize_run(shelf, run.path))
    return store.find_run(root, str(run.path))
