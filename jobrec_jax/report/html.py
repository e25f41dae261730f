"""One self-contained page: figures inside, nothing fetched, and only scripts of its own."""

import base64
from collections.abc import Sequence
import dataclasses
import hashlib
from html import escape
from importlib import resources
from pathlib import Path
import re

from jobrec_jax.report.canvas import Picture
from jobrec_jax.report.findings import MARKS, Finding
from jobrec_jax.report.results import Table
from jobrec_jax.schema.files import write_text

PHONE = 40  # letters of a table row that a phone shows beside each other
NOTE = ('★ best of those that know no truth. ≈ compared with it list by list and not told from it. '
        'Where neither stands, a system is worse or was not compared.')


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report, shown in this order; whatever is empty is left out.

  Attributes:
    heading: its title; the name that links lead to is made of it.
    text: paragraphs, parted by blank lines.
    findings: sentences, each with a link to its numbers.
    pictures: figures with their captions.
    body: HTML that is safe already, e.g. the dial's.
    tables: below that.
    terms: (term, what it means).
  """

  heading: str
  text: str = ''
  findings: Sequence[Finding] = ()
  pictures: Sequence[Picture] = ()
  body: str = ''
  tables: Sequence[Table] = ()
  terms: Sequence[tuple[str, str]] = ()


def write_report(path: str | Path, title: str, facts: Sequence[tuple[str, str]],
                 sections: Sequence[Section], scripts: Sequence[str] = ()) -> None:
  """Writes the whole report as one file that opens anywhere. All text is escaped.

  Its content security policy lets nothing be fetched or sent, and nothing run but `scripts`.

  Args:
    path: of the HTML file.
    title: of the page.
    facts: (label, value) pairs, below the first section.
    sections: in order.
    scripts: JavaScript of our own.
  """
  style = resources.files('jobrec_jax.report').joinpath('page.css').read_text(encoding='utf-8')
  allowed = ' '.join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
  links = ''.join(f'<li><a href="#{anchor(s.heading)}">{_text(s.heading)}</a></li>'
                  for s in sections)
  first, *rest = map(section_html, sections)
  body = '\n'.join([f'<h1>{_text(title)}</h1>',
                    f'<nav aria-label="Contents"><ul>{links}</ul></nav>', first, _facts(facts),
                    *rest, *(f'<script>{script}</script>' for script in scripts)])
  write_text(path, f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src {allowed}">
<title>{_text(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
""")


def anchor(*names: str) -> str:
  """The name of a place in the page: of a section, of a table, or of a row of a table."""
  return '--'.join(re.sub(r'[^\w.]+', '-', name.lower()).strip('-') for name in names)


def section_html(section: Section) -> str:
  parts = [f'<h2>{_text(section.heading)}</h2>']
  parts += [f'<p>{_text(p.strip())}</p>' for p in section.text.split('\n\n') if p.strip()]
  if section.findings:
    parts.append(f'<ul class="findings">{"".join(map(_finding, section.findings))}</ul>')
  if section.pictures:
    parts.append(f'<div class="figures">{"".join(map(_figure, section.pictures))}</div>')
  parts += [section.body, *map(table_html, section.tables)]
  if section.terms:
    terms = ''.join(f'<dt>{_text(term)}</dt><dd>{_text(what)}</dd>' for term, what in section.terms)
    parts.append(f'<dl class="terms">{terms}</dl>')
  return (f'<section id="{anchor(section.heading)}">\n' + '\n'.join(filter(None, parts))
          + '\n</section>')


def table_html(table: Table) -> str:
  """A table that a narrow page shows as a card for each row; its roles outlive that change."""
  head = ''.join(f'<th scope="col" role="columnheader">{_text(c)}</th>' for c in table.header)
  body = '\n'.join(_row(table, i) for i in range(len(table.rows)))
  kind = ' class="cards"' if _letters(table) > PHONE else ''
  note = f'<p class="note">{NOTE}</p>' if table.best else ''
  return (f'<table role="table"{kind} id="{anchor(table.title)}">'
          f'<caption>{_text(table.title)}</caption>\n'
          f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
          f'<tbody role="rowgroup">{body}</tbody></table>{note}')


def _letters(table: Table) -> int:
  """How wide a row is at least: names and headers break between words, intervals stand below."""
  width = 2 * len(table.header)
  for j, column in enumerate(zip(table.header, *table.rows)):
    words = [w for text in column[:1 if j else None] for w in re.split(r'[\s-]', text)]
    parts = [] if j == 0 else [part for text in column[1:] for part in text.split(' [')]
    width += max(map(len, [*words, *parts]))
  return width


def _row(table: Table, i: int) -> str:
  name, *cells = table.rows[i]
  parts = [f'<th scope="row" role="rowheader" data-label="{_text(table.header[0])}">'
           f'{_text(name)}</th>']
  for j, text in enumerate(cells, 1):
    kind = 'best' if (i, j) in table.best else 'level' if (i, j) in table.level else ''
    if not kind:
      kind = 'none' if not text else '' if re.match(r'[−–\d(]', text) else 'words'
    value, bracket, interval = text.partition(' [')
    words = {'best': ' (best)', 'level': ' (not told from the best)'}.get(kind, '')
    hidden = f'<span class="hidden">{words}</span>' if words else ''
    bounds = f' <span class="interval">[{_text(interval)}</span>' if bracket else ''
    parts.append(f'<td role="cell" data-label="{_text(table.header[j])}"'
                 f'{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>'
                 f'<span><span class="value">{_text(value)}</span>{hidden}{bounds}</span></td>')
  return f'<tr role="row" id="{anchor(table.title, name)}">{"".join(parts)}</tr>'


def _finding(finding: Finding) -> str:
  table, _ = finding.place
  return (f'<li class="{finding.verdict}"><span class="mark" aria-hidden="true">'
          f'{MARKS[finding.verdict]}</span><span class="hidden">{finding.verdict}: </span>'
          f'{_text(finding.text)} '
          f'<a href="#{anchor(*finding.place)}" title="{_text(table)}">numbers</a></li>')


def _figure(picture: Picture) -> str:
  caption = f'<figcaption>{_text(picture.caption)}</figcaption>' if picture.caption else ''
  return (f'<figure style="width: {picture.width:.2f}in">'
          f'<div role="img" aria-label="{_text(picture.caption)}">'
          f'<div class="wide">{picture.wide}</div><div class="narrow">{picture.narrow}</div></div>'
          f'{caption}</figure>')


def _facts(facts: Sequence[tuple[str, str]]) -> str:
  inside = ''.join(f'<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>'
                   for label, value in facts)
  return f'<dl class="facts">{inside}</dl>' if facts else ''


def _digest(script: str) -> str:
  return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')


def _text(value) -> str:
  return escape(str(value), quote=True)
