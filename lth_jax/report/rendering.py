"""HTML pages from templates that escape every text; the pictures are inside, nothing is loaded."""

from __future__ import annotations

import functools
import html
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.extras import lazy
from lth_jax.report.display import quantity
from lth_jax.report.plotting import SIZE, images, shows_nothing
from lth_jax.text import column_kinds, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

jinja2: Any = lazy("jinja2", "A page")


class Caption(NamedTuple):
    """The title above a figure and the text below it."""

    title: str
    text: str


class Picture(NamedTuple):
    """A figure as a page shows it.

    Attributes:
      name: name of its files.
      caption: its title and text.
      files: its bytes as `"svg"` and `"png"`.
      is_wide: whether it is as wide as the page, else half as wide.
    """

    name: str
    caption: Caption
    files: dict[str, bytes]
    is_wide: bool

    @property
    def element(self) -> str:
        """The SVG as an element of a page, without prologue and with unique ids."""
        svg = self.files["svg"].decode()
        element = svg[svg.index("<svg") :]
        element = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{self.name}-", element)
        label = f'<svg role="img" aria-label="{html.escape(self.name)}"'
        return element.replace("<svg", label, 1)


class Omitted(NamedTuple):
    """A degenerate figure, left out: its title and the reason."""

    title: str
    why: str


@functools.cache
def texts() -> dict[str, Any]:
    """`captions.toml`: the headings of sections, and title and text of each named figure."""
    return _toml("captions")


@functools.cache
def glossary(kind: str = "terms") -> dict[str, str]:
    """`glossary.toml`: the definitions of all terms, or of those that it lists under `kind`."""
    found = _toml("glossary")
    return {term: found["terms"][term] for term in found[kind]}


def _toml(name: str) -> dict[str, Any]:
    file = resources.files("lth_jax.report") / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))


def caption(name: str) -> Caption:
    """The caption of a run's figure: from `captions.toml`, or made for a metric.

    >>> caption("test_loss_final").title, caption("validation_loss_curves").title
    ('Test loss at the end', 'Validation loss in training')
    """
    if name in texts():
        return Caption(**texts()[name])
    label = quantity(name.removesuffix("_curves")).label
    over = "Mean and 95 % interval over replicates. Dashed: dense networks."
    if name.endswith("_curves"):
        text = f"{label} during training, at up to four densities. {over}"
        return Caption(f"{label} in training", text)
    what = label.replace(" at early stop", " at the step with the smallest validation loss")
    what = what.replace(" at the end", " after the last training step")
    return Caption(label, f"{what}, against the weights remaining. {over}")


def pictures(
    figures: Mapping[str, Figure | str], captions: Mapping[str, Caption] | None = None
) -> tuple[list[Picture], list[Omitted]]:
    """The drawn figures, and the titles of degenerate ones with the reason.

    Args:
      figures: figures by file name; a text in place of a figure is the reason why there is none.
      captions: captions by file name; those of `caption` for all others.
    """
    given = captions or {}
    captions = {name: given.get(name) or caption(name) for name in figures}
    shown, omitted = [], []
    for name, figure in figures.items():
        why = figure if isinstance(figure, str) else shows_nothing(figure)
        if why or isinstance(figure, str):
            omitted.append(Omitted(captions[name].title, why))
        else:
            is_wide = figure.get_figwidth() > SIZE[0]
            shown.append(Picture(name, captions[name], images(figure), is_wide))
    return shown, omitted


def files_of(shown: Sequence[Picture]) -> dict[str, bytes]:
    """The files of pictures, by path relative to the page."""
    return {
        f"figures/{picture.name}.{kind}": content
        for picture in shown
        for kind, content in picture.files.items()
    }


def render(template: str, **parts: Any) -> bytes:
    """A page: a template of this package with these parts, all texts escaped.

    Raises:
      lth_jax.extras.MissingExtraError: Jinja is not installed.
    """
    return _templates().get_template(template).render(parts).encode()


@functools.cache
def _templates() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lth_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.filters["kinds"] = column_kinds
    environment.globals["glossary"] = terms_of("pages")
    return environment


def terms_of(kind: str) -> list[tuple[str, str]]:
    """The terms that `glossary.toml` lists under `kind` with their definitions as plain text."""
    return [(term, text.replace("`", "")) for term, text in glossary(kind).items()]
