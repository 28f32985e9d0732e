"""A process for the tests to start, race and kill: `python worker.py COMMAND ROOT`."""

import logging
import os
import sys
import time
from pathlib import Path

import numpy as np

from lth_jax.store import Node, Store, content_key, on_signals, open_run

KEY = content_key("the orbit of the logistic map")
STEPS = 12


def advance(x):
    """One step of a chaotic map: any repeated or forgotten step shows in the end."""
    return 3.99 * x * (1.0 - x)


def orbit(partial, note=lambda line: None, stop=None):
    """A node in twelve saved steps."""
    progress = partial.load({"x": np.zeros(1000), "mask": np.zeros(3, bool)})
    step = progress.step if progress else 0
    x = progress.tree["x"] if progress else np.linspace(0.1, 0.2, 1000)
    note(f"begin {step}")
    while step < STEPS:
        x, step = advance(x), step + 1
        partial.save(step, {"x": x, "mask": x[:3] > 0.5}, {"step": step})
        note(f"saved {step}")
        if stop is not None:
            time.sleep(0.2)
            stop.check()
    return Node({"x": x, "history": {"empty": np.zeros((0, 4))}}, {"steps": STEPS})


def compute(root):
    """Computes the node; `notes` tells how far each attempt came."""
    with (root / "notes").open("a", buffering=1) as notes:
        Store(root).node(KEY, lambda partial: orbit(partial, lambda line: print(line, file=notes)))


def race(root):
    """Computes another node, but not before a second process has asked for it too."""

    def wait(partial):
        with (root / "computed").open("a") as file:
            file.write("once\n")
        while len(list(root.glob("asked-*"))) < 2:
            time.sleep(0.01)
        time.sleep(1.5)  # longer than a process waits in silence
        return {"x": np.ones(3)}, {}

    (root / f"asked-{os.getpid()}").touch()
    print(Store(root).node(content_key("race"), wait).arrays["x"].tolist())


def run(root):
    """A run that computes the node and stops politely when asked to."""
    with (
        on_signals() as stop,
        open_run(root, name="orbit", config={"steps": STEPS}, env={}) as record,
    ):

        def note(line):
            record.log({"note": line})
            print(line, flush=True)

        Store(root).node(KEY, lambda partial: orbit(partial, note, stop))
        record.add(KEY, level=0)
        record.finish()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    {"compute": compute, "race": race, "run": run}[sys.argv[1]](Path(sys.argv[2]))
