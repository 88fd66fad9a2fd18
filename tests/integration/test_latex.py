"""The LaTeX tables of a report compile as they are, with labels that LaTeX would take for commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.commands import leave_out_figures
from helpers.readings import publish_rows
from helpers.recording import COMMAND, HOSTILE

from decoderbench.report import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed; see .ci/run"),
]

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""
LABELS = [
    *HOSTILE[:5],
    "[t] * ~~u~~ --- \x1b ^^M %",
    r"\end{tabular}\input{/etc/passwd}",
    "a & b \\\\ \\hline # $ _ ^ {",
    "",
]
"""Those of `HOSTILE` whose characters a LaTeX document without further packages has, and more commands."""


def compile_document(folder: Path, body: str) -> tuple[int, str]:
    """Return the exit status of pdflatex, and its log."""
    (folder / "document.tex").write_text(DOCUMENT % body, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "document.tex"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    return finished.returncode, finished.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a report whose encoders, decoders, failures and command are hostile."""
    rows: dict[tuple[str, ...] | str, list[str | None]] = {
        (encoder, "p", decoder): ["1101", "1100"] for encoder in LABELS[:2] for decoder in LABELS
    }
    rows[LABELS[0], "p", LABELS[1]] = ["1111", None]
    directory = publish_rows(tmp_path_factory.mktemp("hostile"), rows)
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        write_report(directory.path, command=f"{COMMAND} {LABELS[7]}\n\\undefined")
    return directory.path / "tables"


def test_every_table_with_hostile_labels_compiles(tables: Path, tmp_path: Path) -> None:
    files = sorted(tables.glob("*.tex"))
    assert {"main.tex", "contrasts.tex", "effects.tex", "interactions.tex", "errors.tex"} <= {
        file.name for file in files
    }
    status, log = compile_document(tmp_path, "\n".join(file.read_text(encoding="utf-8") for file in files))
    assert status == 0, log[-2000:]
    assert "passwd" not in (tmp_path / "document.log").read_text(errors="replace"), "a label was obeyed"


def test_compiler_refuses_a_table_whose_label_is_not_escaped(tables: Path, tmp_path: Path) -> None:
    text = (tables / "main.tex").read_text(encoding="utf-8")
    status, _ = compile_document(tmp_path, text.replace(r"\midrule", "\\midrule\na & b_c & # \\\\", 1))
    assert status != 0
