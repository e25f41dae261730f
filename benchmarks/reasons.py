"""Tables and examples of docs/explain.md and README.md, from kept judgements of a run a domain.

  python -m experiments.explain --workdir=runs/quickstart
  python -m benchmarks.reasons --take=runs/quickstart    keeps it, and writes the pages
  python -m benchmarks.reasons                           writes the pages again

What is written stands between `<!-- DOMAIN WHAT -->` and `<!-- end -->`, WHAT one of `PARTS`.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from pathlib import Path
import re
from typing import Any

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.evaluate.reasons import METRICS
from jobrec_jax.pipeline import provenance
from jobrec_jax.pipeline.explain import COMPARED, Example, in_words
from jobrec_jax.schema.files import read_json, write_json, write_text

ROOT = Path(__file__).parents[1]
KEPT = ROOT / 'benchmarks/results/reasons'
PAGES = ROOT / 'README.md', ROOT / 'docs/explain.md'


def cell(row: Mapping[str, Any] | None) -> str:
  if row is None or row['value'] is None:
    return '–'
  ends = '' if row['low'] is None or row['low'] == row['high'] else (
      f" [{row['low']:.3f}, {row['high']:.3f}]")
  return f"{row['value']:.3f}{ends}"


def table(kept: Mapping[str, Any], perspective: str, against: bool = False) -> str:
  """Systems and their metrics, or the writer's differences to rivals."""
  rows = [r for r in kept['rows'] if r['perspective'] == perspective
          and (r['against'] is not None) == against]
  at = {((r['against'] or r['system']), r['metric']): r for r in rows}
  metrics = COMPARED if against else METRICS
  return markdown(('writer less' if against else 'system', *metrics), [
      (name, *(cell(at.get((name, m))) for m in metrics))
      for name in dict.fromkeys(name for name, _ in at)])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def examples(kept: Mapping[str, Any]) -> str:
  return '\n'.join(f'- {in_words(Example(**e))}' for e in kept['examples'])


def three(kept: Mapping[str, Any]) -> str:
  """The first of them, right or wrong."""
  return examples({'examples': kept['examples'][:3]})


def origin(kept: Mapping[str, Any]) -> str:
  n = max(r['n'] for r in kept['rows'])
  return f'{n} held-out pairs of one run, at commit {kept["commit"]}.'


PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'origin': origin, 'examples': examples, 'three': three,
    **{p: functools.partial(table, perspective=p) for p in ('preference', 'qualification')},
    **{f'{p}-differences': functools.partial(table, perspective=p, against=True)
       for p in ('preference', 'qualification')}}
MARK = re.compile(rf'(<!-- (\w+) ({"|".join(PARTS)}) -->\n).*?(<!-- end -->)', re.S)


def render(page: str) -> str:
  """The page with its tables and examples written from what is kept."""
  return MARK.sub(
      lambda m: f'{m[1]}{PARTS[m[3]](read_json(KEPT / f"{m[2]}.json"))}\n{m[4]}', page)


def main(argv: Sequence[str]) -> None:
  del argv
  if flags.FLAGS.take:
    run = Path(flags.FLAGS.take)
    domain = read_json(run / 'run.json')['settings']['market']['domain']
    write_json(KEPT / f'{domain}.json',
               read_json(run / 'reasons.json') | {'commit': provenance.commit()}, indent=1)
  for page in PAGES:
    write_text(page, render(page.read_text()))


if __name__ == '__main__':
  flags.DEFINE_string('take', None, 'a run that experiments.explain judged')
  launch(main)
