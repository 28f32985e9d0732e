"""Writes a network of a finished run as a program that runs without this library.

    python -m experiments.export RUN FILE --level 3 --replicate 0 [--compact]

A FILE that ends in `.stablehlo` is an artifact of `jax.export`, one that ends in `.onnx` an ONNX
model.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.finished import add_folders, machine_of, open_finished
from lth_jax import exchange
from lth_jax.analysis import AnalysisError
from lth_jax.analysis.latency import Shrinker
from lth_jax.cli.options import Options
from lth_jax.cli.programs import UserError, exit_code
from lth_jax.coding.stored import REWOUND, TRAINED, rewound
from lth_jax.exchange.programs import Apply
from lth_jax.extras import MissingExtraError
from lth_jax.legal import one_of, whole
from lth_jax.types import TICKET

SAVE: dict[str, Any] = {".stablehlo": exchange.save_stablehlo, ".onnx": exchange.save_onnx}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Options("experiments.export", str(__doc__))
    parser.add_argument("run", metavar="RUN", help="a run's folder, name, or beginning of it")
    parser.add_argument("file", metavar="FILE", help=f"the file to write, one of {', '.join(SAVE)}")
    parser.add_argument(
        "--level", type=int, help="round of train-prune-rewind; the last by default"
    )
    parser.option("replicate", whole(0), 0, "index of the seed")
    parser.add_argument("--arm", default=TICKET, help="ticket, dense, or a control")
    parser.option("values", one_of((TRAINED, REWOUND)), TRAINED, "trained, or of the rewind point")
    parser.option("batch", whole(1, 1_000_000), 1, "the number of examples that the program takes")
    parser.add_argument("--compact", action="store_true", help="leave out the dead units")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    add_folders(parser)

    def work() -> str:
        options = parser.parse_args(argv)
        if Path(options.file).suffix not in SAVE:
            raise UserError(f"`FILE` is '{options.file}'; it must end in {' or '.join(SAVE)}.")
        run = open_finished(machine_of(options), options.run).result
        last = max(entry.level for entry in run.record.levels)
        level = last if options.level is None else options.level
        one = run.ticket(level, options.replicate, arm=options.arm).stored
        if options.values == REWOUND:
            params, state = rewound(run.store, run.info, one)
            one = one._replace(params=params, state=state)
        shrinker = Shrinker(run.task, options.batch)
        dense = shrinker.variables(one)
        f: Apply = shrinker.apply
        small = dense
        save = SAVE[Path(options.file).suffix]
        try:
            if options.compact:
                f, small = shrinker.compact(one, shrinker.live(one))
            written = save(
                options.file, f, small, shrinker.x, dense=dense, overwrite=options.overwrite
            )
        except (AnalysisError, exchange.ExchangeError, MissingExtraError) as error:
            raise UserError(str(error)) from error
        return repr(written)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
