"""The tables of a study as text: terminal, Markdown, LaTeX."""
