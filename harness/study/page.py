"""The study's page: one HTML file with tables, footnotes and pictures, that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from harness.study.tables import Row, Table

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #5f6773; --rule: #d9dde3; --ground: #fff;
  --soft: #f6f7f9; --mark: #b45309; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --muted: #9aa3ae; --rule: #353b44; --ground: #15181c; --soft: #1d2126; --mark: #fbbf24; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 96rem; padding: 2.5rem 1.5rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .7rem; }
p.lead { color: var(--muted); margin: 0; max-width: 60rem; }
p.caption { color: var(--muted); margin: .4rem 0 0; font-size: 13.5px; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .55rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--muted); background: var(--soft); border-bottom: 1px solid var(--rule);
  white-space: normal; vertical-align: bottom; min-width: 4.2rem; }
th:first-child, td:first-child { text-align: left; }
td:first-child { font-weight: 600; }
tbody { border-bottom: 1px solid var(--rule); }
tbody:last-child { border-bottom: 0; }
tr.baseline td { color: var(--muted); font-weight: 400; }
td.marked { color: var(--mark); }
tbody tr:hover td { background: var(--soft); }
ul { color: var(--muted); padding-left: 1.1rem; max-width: 70rem; font-size: 13.5px; }
li.deep { margin-left: 1.2rem; }
li.loud { color: var(--mark); font-weight: 600; }
figure { margin: 0; overflow-x: auto; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 8px; }
footer { margin-top: 3rem; color: var(--muted); font-size: 13px; }
"""


@dataclass(frozen=True)
class Picture:
    """A PNG with its heading and the text that stands for it where it cannot be seen."""

    title: str
    path: Path
    alternative: str
    width: int = 0


FOOTER = "Every metric, with its interval, is in table.csv; every trial is in trials.csv."


def page(
    title: str,
    lead: str,
    made: Sequence[Table],
    lines: Sequence[str],
    pictures: Sequence[Picture],
    *,
    tables_first: bool = False,
    footer: str = FOOTER,
) -> str:
    """The page as HTML.

    Parameters
    ----------
    title
        The study's name.
    lead
        What stands under it.
    made
        Tables.
    lines
        Footnotes; one that begins with spaces belongs to the one before.
    pictures
        PNG files, embedded; the first stands before the tables, unless they are to come first.
    tables_first
        Put every picture after the tables.
    footer
        The last line.
    """
    before = 0 if tables_first else 1
    parts = [_picture(one) for one in pictures[:before]]
    parts += [_table(table) for table in made]
    parts.append(f"<ul>{''.join(_note(line) for line in lines)}</ul>")
    parts += [_picture(one) for one in pictures[before:]]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n' + "\n".join(parts) + "\n"
        f"<footer>{escape(footer)}</footer>\n"
        "</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    titles = [*table.heads, *(column.title for column in table.columns)]
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body: list[str] = []
    block: str | None = None
    for row in table.rows:
        now = "" if row.baseline else row.labels[0]
        if now != block:
            body.append(("</tbody>" if body else "") + "<tbody>")
        body.append(_row(table, row))
        block = now
    closing = "</tbody>" if body else ""
    caption = f'\n<p class="caption">{escape(table.caption)}</p>' if table.caption else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        + "\n".join(body)
        + f"{closing}</table></div>{caption}"
    )


def _row(table: Table, row: Row) -> str:
    cells = [f"<td>{escape(label)}</td>" for label in row.labels]
    for text, score in zip(table.texts(row), row.scores, strict=True):
        cells.append(f"<td{_class('marked' if score.mark else '')}>{escape(text)}</td>")
    return f"<tr{_class('baseline' if row.baseline else '')}>{''.join(cells)}</tr>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _note(line: str) -> str:
    name = "deep" if line.startswith(" ") else "loud" if line.startswith("ORACLE") else ""
    return f"<li{_class(name)}>{escape(line.strip())}</li>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    size = f' width="{picture.width}"' if picture.width else ""
    return (
        f"<h2>{escape(picture.title)}</h2>\n<figure>"
        f'<img alt="{escape(picture.alternative)}"{size} src="data:image/png;base64,{data}"></figure>'
    )
