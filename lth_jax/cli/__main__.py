"""`python -m lth_jax.cli` is `lth`."""

import sys

from lth_jax.cli import main

sys.exit(main())
