"""Made-up measurements of a made-up run, for tests that read and draw them."""

import numpy as np

from lth_jax import store
from lth_jax.report import learning_rates, rates
from lth_jax.store.analyses import add_analysis
from tests.report import synthetic

REPLICATES = 3
DENSITIES = (1.0, 0.5, 0.25)


def spectrum(rng, arm, level, replicate, point):
    top = 8.0 / (level + 1) * (1 + 0.1 * replicate)
    nodes = np.sort(rng.normal(size=(2, 12)) * 0.3, axis=1)
    nodes[:, -2:] = [0.8 * top, top]
    return {
        "largest": np.array([top, 0.8 * top, 0.5, 0.4]),
        "largest_bounds": np.full(4, 1e-3),
        "smallest": np.array([-0.5, -0.4]),
        "smallest_bounds": np.full(2, 1e-3),
        "nodes": nodes,
        "weights": np.full((2, 12), 1 / 12),
    }


def _labelled(rng):
    """Labels, further facts, and arrays of every node."""
    for level, density in enumerate(DENSITIES):
        for arm, points in (
            [("dense", ("dense", "start"))]
            if level == 0
            else [("ticket", ("start", "masked", "retrained")), ("random", ("masked",))]
        ):
            for replicate in range(REPLICATES):
                for point in points:
                    about = {"arm": arm, "level": level, "replicate": replicate, "point": point}
                    facts = {"density": density, "size": int(1000 * density), "converged": True}
                    arrays = spectrum(rng, arm, level, replicate, point)
                    yield {"kind": "spectrum", **about}, facts, arrays
            about = {"arm": arm, "level": level, "replicate": 0, "point": points[-1]}
            xs = np.linspace(-1, 1, 5)
            arrays = {"xs": xs, "ys": xs, "loss": 0.1 + xs[:, None] ** 2 + 2 * xs**2}
            yield {"kind": "surface", **about}, {"density": density}, arrays
    for rewind, height in ((0, 0.3), (20, 0.1), (100, 0.01)):
        for level, density in enumerate(DENSITIES[:2]):
            barriers = np.full((REPLICATES, 1), height) + 0.001 * np.arange(REPLICATES)[:, None]
            arrays = {f"{split}_error_barrier": barriers for split in ("train", "test")}
            about = {"kind": "stability", "level": level, "rewind": rewind}
            yield (
                about,
                {"density": density},
                arrays | {"alive": np.array([True, True, level == 0])},
            )
    rates = 2.0 ** np.arange(-3, 2)
    for arm, level, best in (("dense", 0, 1), ("ticket", 2, 3)):
        losses = 0.1 + (np.arange(5) - best) ** 2 + 0.01 * np.arange(REPLICATES)[:, None]
        losses[:, -1] = np.nan  # diverged
        arrays = {
            "rates": rates,
            "step": np.array([10, 20]),
            "train_loss": losses,
            "test_accuracy": np.full((REPLICATES, 5), 0.5),
            "relative_sharpness": np.full((2, REPLICATES, 5), 0.7) * rates,
            **{name: np.full(REPLICATES, 0.9) for name in learning_rates.PREDICTIONS},
        }
        arrays["start_best"] = np.full(REPLICATES, np.nan)
        about = {"kind": "learning_rates", "arm": arm, "level": level}
        yield about, {"density": DENSITIES[level]}, arrays


def curvature():
    """Labels and nodes of spectra, surfaces, stability and learning rates."""
    found = _labelled(np.random.default_rng(0))
    return [(labels, store.Node(arrays, labels | facts)) for labels, facts, arrays in found]


GROUPS = [
    {"name": "a/bias:0", "units": 8, "slots": [["a/bias", 0, 1], ["a/kernel", 1, 1]]},
    {"name": "b/bias:0", "units": 4, "slots": [["b/bias", 0, 1], ["b/kernel", 1, 1]]},
]
ARMS = {"ticket": 0.02, "refill": 0.0, "refill_reinit": -0.04}


def networks():
    dense = [("dense", 0, r) for r in range(3)]
    pruned = [(arm, level, r) for level in (1, 2) for arm in ARMS for r in range(3)]
    return [
        dict(zip(("arm", "level", "replicate"), place, strict=True)) for place in dense + pruned
    ]


def described():
    every = networks()
    alive = {g["name"]: np.zeros((len(every), g["units"]), bool) for g in GROUPS}
    density = np.ones((len(every), 2), np.float32)
    for i, one in enumerate(every):
        left = 1 if one["arm"] in ("dense", "ticket") else 2 ** one["level"]
        for group in GROUPS:
            alive[group["name"]][i, : group["units"] // left] = True
        density[i] = 0.5 ** one["level"], 0.5 ** one["level"] * (0.9 if one["level"] else 1)
    return store.Node({"alive": alive, "density": density}, {"groups": GROUPS, "networks": every})


def timed():
    rng = np.random.default_rng(0)
    shapes = [{"a/bias:0": 8 // n, "b/bias:0": 4 // n} for n in (1, 2, 4)]
    facts = []
    for one in networks():
        small = one["arm"] not in ("dense", "ticket")
        accuracy = 0.9 - 0.1 * one["level"] + ARMS.get(one["arm"], 0) + 0.001 * one["replicate"]
        facts.append({**one, "accuracy": accuracy, "shape": one["level"] if small else 0})
    rounds = rng.uniform(1, 3, 9)
    return store.Node({"seconds": np.outer([1e-3, 6e-4, 2e-4], rounds)},
                      {"networks": facts, "shapes": shapes})  # fmt: skip


BEHAVIOUR_SCORES = ["ece", "nll", "brier", "recovered", "recovered_by_chance", "dead_units/Dense_0"]
BEHAVIOUR_NETWORKS = [
    {"arm": arm, "level": level, "replicate": r, "density": 0.5**level}
    for arm, level in (("dense", 0), ("ticket", 1), ("random", 1), ("ticket", 2))
    for r in range(3)
]


def behaviour(groups):
    rng = np.random.default_rng(0)
    arrays = {"scores": rng.uniform(size=(len(BEHAVIOUR_NETWORKS), len(BEHAVIOUR_SCORES)))}
    if groups:
        arrays["confusions"] = rng.integers(1, 9, (len(BEHAVIOUR_NETWORKS), len(groups), 2, 2))
    return store.Node(
        arrays, {"networks": BEHAVIOUR_NETWORKS, "scores": BEHAVIOUR_SCORES, "groups": groups}
    )


def add(shelf, folder, nodes):
    """Keeps nodes as analyses of the run in a folder."""
    for labels, node in nodes:
        key = store.content_key([str(folder), labels])
        shelf.node(key, lambda _, node=node: node)
        add_analysis(folder, key, labels)


def write(root):
    """A run of which everything is measured: its store and info."""
    info = synthetic.write(root, nodes=synthetic.ladder(levels=4))
    shelf = store.Store(root)
    parts = {"units": described(), "latency": timed(), "behaviour": behaviour(["0", "1"])}
    add(shelf, info.path, [*curvature(), *(({"kind": kind}, one) for kind, one in parts.items())])
    rates.write(info.path, info.config_hash, synthetic.rates())
    return shelf, info
