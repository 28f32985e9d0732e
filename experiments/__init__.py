"""Commands, configs, studies and benchmarks.

A program of this package (`python -m experiments.run`) takes seconds to import JAX. During the
import and after its end, a signal ends it with one message.
"""

import sys

from lth_jax.cli.programs import end_at_once

if sys.argv[:1] == ["-m"]:  # Python sets this while it imports the module of `-m experiments.NAME`
    end_at_once()
