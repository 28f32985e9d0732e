"""`python -m lth_jax.cli` is `lth`."""

import sys

from lth_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
