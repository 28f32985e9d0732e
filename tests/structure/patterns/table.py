"""Writes the table of patterns into `docs/structure.md`, with the reasons that `find_groups` gives.

Run `python -m tests.structure.patterns.table` after a change of a pattern or of a reason.
"""

from pathlib import Path

from lth_jax import structure as st
from tests.structure.patterns import language, vision
from tests.structure.patterns.registry import PATTERNS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "structure.md"
MARK = "<!-- the table of patterns -->\n"


def patterns():
    """All patterns by name."""
    assert language and vision  # their import registers them
    return PATTERNS


def row(name, found, blocks):
    """The row of one pattern."""
    pattern = patterns()[name]
    units = [
        f"{n} {kind}" + "".join(f" (not exact: {why})" for why in found[group].inexact[:1])
        for kind, (group, n) in pattern.groups.items()
    ]
    depth = [f"{len(blocks)} residual block{'s' * (len(blocks) > 1)}"] if blocks else []
    kept = [
        f"{what}: {found.pinned[axes[0][0]][axes[0][1]][0]}" for what, axes in pattern.kept.items()
    ]
    return f"| {name} | {', '.join([*units, *depth])} | {'; '.join(kept)} |"


def table():
    """The table in Markdown."""
    lines = ["| pattern | removable | stays |", "| --- | --- | --- |"]
    for name, p in patterns().items():
        found = st.find_groups(p.apply, p.params, *p.args)
        lines.append(row(name, found, st.blocks(found)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    before, _, after = PAGE.read_text("utf-8").split(MARK)
    PAGE.write_text(MARK.join([before, table(), after]), "utf-8")
