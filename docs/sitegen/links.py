"""Which files of the repository have a page, and what becomes of links to the others."""

from functools import cache
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).parents[2]
INCLUDED = (
    *("CHANGELOG.md", "CONTRIBUTING.md"),
    *(f"{folder}/**/*.md" for folder in ("experiments", "framework", "plugins", "results")),
)
DECISIONS = "framework/decisions"


@cache
def included_files() -> tuple[str, ...]:
    """Return the Markdown files that have a page of their own, relative to the root of the repository."""
    return tuple(sorted({file.relative_to(ROOT).as_posix() for one in INCLUDED for file in ROOT.glob(one)}))


def page_of(path: str) -> str | None:
    """Return the page of a file or folder of the repository; None if it has none."""
    others = {"README.md": "index", DECISIONS: f"{DECISIONS}/index"}
    return others.get(path) or (path.removesuffix(".md") if path in included_files() else None)


class RepositoryLinks(SphinxTransform):
    """Resolves relative links of included files that MyST does not: those to anything but another included file.

    The pages have the paths of the files, so MyST finds the page of a file by itself. Here, a link to a file without a
    page becomes a download of the file, and one to a folder becomes plain text. Links that lead nowhere are left to
    MyST, which warns of them.
    """

    default_priority = 500

    def apply(self) -> None:
        """Replace the links of one page."""
        folder = PurePosixPath(self.env.docname).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            path, _, anchor = link["reftarget"].partition("#")
            target = (ROOT / folder / path).resolve()
            if link["reftype"] != "myst" or link["refdomain"] or not path or not target.is_relative_to(ROOT):
                continue
            name = target.relative_to(ROOT).as_posix()
            if page := page_of(name):
                link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", page, anchor or None
            elif target.is_file():
                link.replace_self(
                    addnodes.download_reference(
                        "", "", *link.children, refdoc=self.env.docname, reftarget=f"/../{name}", refexplicit=True
                    )
                )
            elif target.is_dir():
                link.replace_self(nodes.inline("", "", *link.children))
