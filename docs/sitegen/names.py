"""The pages of public names, from docstrings."""

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import decoderbench
from sitegen.docstrings import to_rst

LONGEST_VALUE = 80
"""Values of constants are shown up to this number of characters."""

GROUPS = {
    "Experiments and runs": ("runs", "planning", "config", "deadline", "training"),
    "Results": ("inference", "analysis", "report", "records"),
    "Stages and their specs": (
        "model.stages", "model.recognizer", "model.memory", "specs", "labels", "options", "component_options",
        "identity", "sources", "kinds",
    ),
    "Families and parts of stages": ("model",),
    "Datasets": ("data",),
    "Plugins": ("registry", "metrics", "execution"),
    "Errors": ("errors", "files"),
}  # fmt: skip
"""The titles of the pages, and the modules whose names they have, in this order; the longest match decides."""


def public_names() -> dict[str, str]:
    """Return the module that defines each public name, as the stub of the package lists them."""
    stub = ast.parse(Path(decoderbench.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def name_pages() -> dict[str, str]:
    """Return the page of each group.

    Raises:
        ValueError: no group has the module of a name.
    """
    titles = {module: title for title, modules in GROUPS.items() for module in modules}
    names: dict[str, list[tuple[str, str]]] = {module: [] for module in titles}
    for name, module in public_names().items():
        matches = [known for known in titles if f"{module}.".startswith(f"{known}.")]
        if not matches:
            raise ValueError(f"no page of the reference has names of {module}, such as {name}; add it to GROUPS")
        names[max(matches, key=len)].append((name, module))
    pages = {title: [f"# {title}"] for title in GROUPS}
    for known, title in titles.items():
        pages[title] += [line for name, module in names[known] for line in _lines(name, module)]
    return {f"reference/python/{title.lower().replace(' ', '_')}": "\n".join(lines) for title, lines in pages.items()}


def _lines(name: str, module: str) -> Iterator[str]:
    value = getattr(decoderbench, name)
    yield "\n```{eval-rst}"
    if inspect.isclass(value):
        yield f".. autoclass:: decoderbench.{name}\n   :members:\n   :exclude-members: model_config"
        if value.__bases__ != (object,):
            yield "   :show-inheritance:"
    elif inspect.isfunction(inspect.unwrap(value)):
        yield f".. autofunction:: decoderbench.{name}"
    else:  # autodoc finds no docstring of a constant that is imported on first use
        source, docstring = _constant(name, module)
        yield f".. py:data:: {name}\n   :module: decoderbench"
        if len(source) <= LONGEST_VALUE:
            yield f"   :value: {source}"
        lines = docstring.splitlines()
        to_rst(lines)
        yield from ("", *(f"   {line}" for line in lines))
    yield "```\n"


def _constant(name: str, module: str) -> tuple[str, str]:
    """Return the value of a constant as its module spells it, and the docstring below it."""
    file = inspect.getsourcefile(import_module(f"decoderbench.{module}"))
    body = ast.parse(Path(file or "").read_text(encoding="utf-8")).body
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if ast.unparse(targets[0]) == name and isinstance(following, ast.Expr):
                return ast.unparse(statement.value), inspect.cleandoc(ast.literal_eval(following.value))
    raise ValueError(f"the constant {name} of decoderbench.{module} has no docstring below it; add one")
