"""The Sphinx directive `public-names`: the reference of one module from its docstrings."""

import inspect
import re

import public_names
from docutils.parsers.rst import directives
from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.docutils import SphinxDirective

PUBLIC = public_names.modules()
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note):$")
CELL = re.compile(r"(?<!\\)\|")
GOOGLE = Config(napoleon_use_ivar=True, napoleon_use_rtype=False, napoleon_attr_annotations=False)


class PublicNames(SphinxDirective):
    """All public names of the module that is its argument, each documented on one page only.

    The option `first` lists the names that most users need; constants come last.
    """

    required_arguments = 1
    option_spec = {"first": directives.unchanged}  # noqa: RUF012

    def run(self):
        """The nodes of all names."""
        (home,) = self.arguments
        first = self.options.get("first", "").split()
        listed = first + [n for n in public_names.names(PUBLIC[home]) if n not in first]
        elsewhere = [name for name in listed if first_home(home, name) != home]
        own = sorted((n for n in listed if n not in elsewhere), key=str.isupper)
        text = [line for name in own for line in ("", *entry(home, name))]
        if elsewhere:
            links = (f"`{name} <{first_home(home, name)}.{name}>`" for name in elsewhere)
            text += ["", f"On other pages: {', '.join(links)}."]
        return self.parse_text_to_nodes("\n".join(text))


def first_home(home, name):
    """The first public module with this name for the same thing."""
    thing = getattr(PUBLIC[home], name)
    return next(one for one, module in PUBLIC.items() if getattr(module, name, None) is thing)


def entry(home, name):
    """The lines of RST for one name: a class with its methods, a function or a constant."""
    thing = getattr(PUBLIC[home], name)
    if inspect.isclass(thing):
        members = ", ".join(public_names.methods(thing))
        return [f".. autoclass:: {home}.{name}"] + ([f"   :members: {members}"] if members else [])
    if inspect.isroutine(thing):
        return [f".. autofunction:: {home}.{name}"]
    below = to_rst(public_names.docstring(PUBLIC[home], name).splitlines())
    return [f".. py:data:: {name}", f"   :module: {home}", "", *(f"   {line}" for line in below)]


def to_rst(lines):
    """Replaces what RST writes in another way: tables, indented code, `|x|` and ```code`s``."""
    made, section, table, code = [], False, False, False
    for before, line in zip(["", *lines], lines, strict=False):
        section = bool(SECTION.match(line)) or (section and (not line or line[0] == " "))
        if re.match(r"\|[ -]", line):
            if not table:
                made += ["", ".. list-table::", "   :header-rows: 1", ""]
            cells = [cell.strip().replace(r"\|", "|") for cell in CELL.split(line)[1:-1]]
            if not all(set(cell) <= set("-:") for cell in cells):
                made += [f"   {' ' if i else '*'} - {cell}" for i, cell in enumerate(cells)]
            table = True
            continue
        was_code = code
        table, code = False, not section and (line.startswith("    ") or (code and not line))
        made += ["::", ""] if code and not was_code and not before else []
        if not code and not line.lstrip().startswith((">>>", "...")):
            line = re.sub(r"\|(\w+)\|", r"\|\1\|", re.sub(r"(`[^`]+`)s\b", r"\1\\ s", line))
        made.append(line)
    return made


def process_docstring(app, what, name, thing, options, lines):
    """Turns a Google-style docstring into RST; properties have sections like methods."""
    what = "method" if what == "property" else what
    lines[:] = GoogleDocstring(to_rst(lines), GOOGLE, app, what, name, thing, options).lines()


def resolve(app, env, node, text):
    """A link for `Class` and `package.name` of another page; single words are often arguments."""
    target = node["reftarget"].removeprefix("lth_jax.").removeprefix("lth.")
    if node.get("refdomain") != "py" or not re.fullmatch(r"[A-Z]\w*[a-z]\w*|\w+\.[\w.]+", target):
        return None
    domain = env.domains["py"]
    found = [name for name in domain.objects if f".{name}".endswith(f".{target}")]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, text)


def setup(app):
    """Registers the directive, the translation of docstrings, and links between pages."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("missing-reference", resolve)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True}
