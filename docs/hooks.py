"""Hooks of mkdocs: formulas become MathML, and pages show the committed results.

MathML is drawn by the browser itself, so that neither building nor viewing loads anything from a network.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ("results/*", "studies/*/results/*")
SHOWN = (".csv", ".html", ".png")
OUTSIDE = re.compile(r"\]\(\.\./(results|studies)/")
RUN = re.compile(r"^```bash run$", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the tables and figures of the studies, as they are committed."""
    for path in sorted(path for pattern in RESULTS for path in ROOT.glob(pattern) if path.suffix in SHOWN):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Link results as the site has them, not by their path in the repository; remove the marks of run blocks."""
    return OUTSIDE.sub(r"](\1/", RUN.sub("```bash", markdown))


def on_page_content(content: str, **context: Any) -> str:
    """Convert each formula to MathML."""
    return FORMULA.sub(lambda found: _mathml(found[3], display=found[2] == "["), content)


def _mathml(latex: str, *, display: bool) -> str:
    formula = str(convert(html.unescape(latex).strip(), display="block" if display else "inline"))
    return f'<div class="formula">{formula}</div>' if display else formula
