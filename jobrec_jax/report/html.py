"""One self-contained report.html: no scripts, nothing fetched, figures inside."""

import base64
from collections.abc import Sequence
import dataclasses
from html import escape
from pathlib import Path

from jobrec_jax.report.results import Table
from jobrec_jax.schema.files import write_text

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #d9dee3; --back: #fff;
  --card: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #363d45; --back: #15181c; --card: #1f242a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--back); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .6rem;
  margin: 0; }
dl div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
tr > :first-child { text-align: left; color: var(--ink); }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; background: #fff; border-radius: .5rem; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; }
"""


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report, shown in this order; whatever is empty is left out.

  Attributes:
    heading: its title.
    text: paragraphs, parted by blank lines.
    figure: path of a PNG, embedded.
    caption: below the figure, and its description for those who cannot see it.
    tables: below that.
  """

  heading: str
  text: str = ''
  figure: str | Path | None = None
  caption: str = ''
  tables: Sequence[Table] = ()


def write_report(
    path: str | Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
) -> None:
  """Writes the whole report as one file that opens anywhere. All text is escaped.

  Args:
    path: of the HTML file.
    title: of the page.
    facts: (label, value) pairs for the top, e.g. ('candidates', '2,000').
    sections: in order.

  Raises:
    ValueError: if a figure is not a PNG file.
  """
  summary = ''.join(f'<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>'
                    for label, value in facts)
  body = '\n'.join([f'<h1>{_text(title)}</h1>', f'<dl>{summary}</dl>' if summary else '',
                    *map(_section, sections)])
  write_text(path, f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
""")


def _text(value) -> str:
  return escape(str(value), quote=True)


def _section(section: Section) -> str:
  parts = [f'<h2>{_text(section.heading)}</h2>']
  parts += [f'<p>{_text(p.strip())}</p>' for p in section.text.split('\n\n') if p.strip()]
  if section.figure is not None:
    parts.append(_figure(Path(section.figure), section.caption))
  parts += map(_table, section.tables)
  return '<section>\n' + '\n'.join(parts) + '\n</section>'


def _figure(path: Path, caption: str) -> str:
  data = path.read_bytes()
  if not data.startswith(b'\x89PNG\r\n'):
    raise ValueError(f'{path} must be a PNG file')
  source = 'data:image/png;base64,' + base64.b64encode(data).decode('ascii')
  width = int.from_bytes(data[16:20], 'big') * 5 // 8  # 160 dots an inch, shown at 100: stays sharp
  below = f'<figcaption>{_text(caption)}</figcaption>' if caption else ''
  return (f'<figure><img width="{width}" alt="{_text(caption)}" src="{source}">'
          f'{below}</figure>')


def _table(table: Table) -> str:
  head = ''.join(f'<th scope="col">{_text(c)}</th>' for c in table.header)
  rows = '\n'.join(
      '<tr>' + f'<th scope="row">{_text(row[0])}</th>'
      + ''.join(f'<td>{_text(c)}</td>' for c in row[1:]) + '</tr>' for row in table.rows)
  # A wide table scrolls by itself, so that the page never does sideways.
  return (f'<div class="scroll"><table><caption>{_text(table.title)}</caption>\n'
          f'<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>')
