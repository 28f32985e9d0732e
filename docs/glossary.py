"""Writes `glossary.md`, a page of the site that any viewer of Markdown shows.

The terms are those of `lth_jax/report/glossary.toml`, which the pages of runs show, too.
"""

from pathlib import Path

from lth_jax.report.rendering import glossary

PAGE = Path(__file__).with_name("glossary.md")


def text() -> str:
    """The page."""
    terms = (f"- **{term}**: {definition}" for term, definition in glossary().items())
    return "\n".join(["# Glossary", "", *terms, ""])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
