"""Fills a small disk, and repeats a command while more and more space is freed.

    unshare -rm sh -c 'mount -t tmpfs -o size=16m none FOLDER; python small_disk.py FOLDER'

What the system refuses here is refused to native code too. The last line of the output is JSON:
the exit codes and sentences, and the rows of the run at the end.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from lth_jax.report import plotting, read_run
from lth_jax.report.tables import summary_rows
from lth_jax.store import Store
from tests.experiments.test_campaigns import command, config

STEP = 48 << 10


def fill(path, free):
    """Leaves so many bytes free, within a page."""
    path.unlink(missing_ok=True)
    room = shutil.disk_usage(path.parent).free - free
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room, 1))


def main(folder):
    plotting.image = lambda figure, kind: b"<svg/>"
    root, free, ended = folder / "runs", 0, []
    while not ended or ended[-1][0] != 0:
        fill(folder / "filler", free)
        code, error = command(config(root))
        sentences = [line for line in error.splitlines() if line.startswith("error: ")]
        ended.append([code, sentences, error if "Traceback" in error else ""])
        free = shutil.disk_usage(folder).free + STEP
    [run] = [path.parent for path in root.glob("*/config.json")]
    print(json.dumps({"ended": ended, "rows": summary_rows(read_run(Store(root), run))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
