"""The Sphinx directive `public-names`: the reference of one module from its docstrings."""

import inspect
import re

import public_names
from sphinx.util.docutils import SphinxDirective

PUBLIC = public_names.modules()
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note):$")
CELL = re.compile(r"(?<!\\)\|")


class PublicNames(SphinxDirective):
    """All public names of the module that is its argument, each documented at one place only."""

    required_arguments = 1

    def run(self):
        """The nodes of the names: classes with their methods, functions, constants."""
        (home,) = self.arguments
        text, elsewhere = [], []
        for name in public_names.names(PUBLIC[home]):
            thing = getattr(PUBLIC[home], name)
            first = first_home(name, thing)
            if first != home:
                elsewhere.append(f"`{name} <{first}.{name}>`")
            elif inspect.isclass(thing):
                members = ", ".join(public_names.methods(thing))
                text += ["", f".. autoclass:: {home}.{name}"]
                text += [f"   :members: {members}"] if members else []
            elif inspect.isroutine(thing):
                text += ["", f".. autofunction:: {home}.{name}"]
            else:
                below = to_rst(public_names.docstring(PUBLIC[home], name).splitlines())
                text += ["", f".. py:data:: {home}.{name}", ""]
                text += [f"   {line}" for line in below]
        if elsewhere:
            text += ["", f"Documented elsewhere: {', '.join(elsewhere)}."]
        return self.parse_text_to_nodes("\n".join(text))


def first_home(name, thing):
    """The first public module with this name for this thing."""
    return next(home for home, module in PUBLIC.items() if vars(module).get(name) is thing)


def to_rst(lines):
    """Docstrings hold Markdown tables and indented code, for which RST needs directives."""
    made, section, table, code = [], False, False, False
    for before, line in zip(["", *lines], lines, strict=False):
        section = bool(SECTION.match(line)) or (section and (not line or line[0] == " "))
        if line.startswith("|"):
            if not table:
                made += ["", ".. list-table::", "   :header-rows: 1", ""]
            cells = [cell.strip().replace(r"\|", "|") for cell in CELL.split(line)[1:-1]]
            if not all(set(cell) <= set("-:") for cell in cells):
                made += [f"   {' ' if i else '*'} - {cell}" for i, cell in enumerate(cells)]
            table = True
            continue
        table, was_code = False, code
        code = not section and (line.startswith("    ") or (code and not line))
        made += ["::", ""] if code and not was_code and not before else []
        made.append(line)
    return made


def setup(app):
    """Registers the directive and the translation of docstrings."""
    app.add_directive("public-names", PublicNames)
    app.connect(
        "autodoc-process-docstring", lambda *event: event[-1].__setitem__(slice(None), to_rst(event[-1])), 400
    )
    return {"parallel_read_safe": True}
