"""Reads a store over and over while others write to it: `reader.py STOP WORDS ROOT`.

Prints how often, and what went wrong, as JSON; ends when there is a file STOP.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from lth_jax import cli


def main(stop, words, root):
    rounds, wrong = 0, []
    while not Path(stop).exists() or not rounds:
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = cli.main([*words.split(), "--root", root])
        if "--json" in words and code == 0:
            json.loads(out.getvalue())
        if code or error.getvalue():
            wrong.append([code, out.getvalue(), error.getvalue()])
        rounds += 1
        time.sleep(0.2)
    print(json.dumps({"rounds": rounds, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
