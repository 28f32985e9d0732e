"""Draws the committed results of all benchmarks over commits, and their latest as tables.

    python -m experiments.benchmarks.history

Reads `benchmarks/results/NAME.jsonl`, a line for each committed run, and writes `docs/results.md`,
`docs/results.svg` and `docs/keras_zoo.md`. Nothing is measured.
"""

import json
from pathlib import Path
from typing import Any

from experiments.benchmarks import keras_zoo
from experiments.benchmarks.report import RESULTS, ROOT
from lth_jax.report.benchmarks import draw, markdown
from lth_jax.report.plotting import image
from lth_jax.store import files


def read(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """All committed runs by benchmark."""
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }


def write(folder: Path = ROOT / "docs") -> None:
    """Writes the pages and the picture."""
    runs = read()
    files.write(folder / "results.md", markdown(runs).encode())
    files.write(folder / "results.svg", image(draw(runs), "svg"))
    files.write(folder / "keras_zoo.md", keras_zoo.page(runs["keras_zoo"]).encode())


if __name__ == "__main__":
    write()
