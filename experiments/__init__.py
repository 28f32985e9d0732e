"""Commands, configs, studies and benchmarks.

A program of this package (`python -m experiments.run`) takes seconds to import JAX. A signal during
the import or after the program's end stops the process with one message.
"""

import sys

from lth_jax.cli.programs import end_at_once

if sys.argv[:1] == ["-m"]:  # Python sets this while it imports the module of `-m experiments.NAME`
    end_at_once()
