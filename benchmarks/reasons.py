"""Tables and examples of docs/explain.md and README.md, from kept judgements of a domain's runs.

  python -m experiments.explain --workdir=runs/0
  python -m experiments.explain --workdir=runs/1 --config.seed=1 --config.data.seed=1
  python -m benchmarks.reasons --take=runs/0,runs/1    keeps them, and writes the pages
  python -m benchmarks.reasons                         writes the pages again

  python -m experiments.explain --workdir=wide/0 --store=runs/0/store --config.explain.beams=4
  python -m benchmarks.reasons --take=runs/0,runs/1 --beams=wide/0,wide/1    what beams change

Each run has a market and a training seed of its own. Of several, numbers are means with intervals
over runs; examples are of the first.

What is written stands between `<!-- DOMAIN WHAT -->` and `<!-- end -->`, WHAT one of `PARTS`.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from pathlib import Path
import re
from typing import Any

from absl import flags

from benchmarks.worlds import t_interval
from jobrec_jax.command_line import launch
from jobrec_jax.evaluate.reasons import METRICS
from jobrec_jax.pipeline.explain import COMPARED, WRITER, Example, in_words
from jobrec_jax.pipeline.record import read_record
from jobrec_jax.pipeline.store import ABOUT
from jobrec_jax.report.results import range_of
from jobrec_jax.schema.files import read_json, write_json, write_text
from jobrec_jax.schema.schema import PERSPECTIVES

ROOT = Path(__file__).parents[1]
KEPT = ROOT / 'benchmarks/results/reasons'
CHANGED = (*COMPARED, 'claims')  # what beams may change of a writer under the grammar
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
  n, runs = max(r['n'] for r in kept['rows']), kept['runs']
  if runs == 1:
    return f'{n} held-out pairs of one run, at commit {kept["commit"]}.'
  return (f'{n} held-out pairs of each of {runs} runs, which differ in market and training seed; '
          f'intervals are over runs. At commit {kept["commit"]}.')


def check(runs: Sequence[Mapping[str, Any]], wide: Sequence[Mapping[str, Any]] = ()) -> None:
  """Raises ValueError: runs with these settings are no draws of one thing, or one is named twice.

  Args:
    runs: their settings.
    wide: those of the same runs with beams; empty where there are none.
  """
  alike = [{k: v for k, v in s.items() if k not in ('seed', 'data')} for s in runs]
  if any(s != alike[0] for s in alike):
    raise ValueError('--take must name runs whose settings differ by seed and data.seed alone')
  seeds = [s['data']['seed'] for s in runs]
  if len({*seeds}) < len(seeds):
    raise ValueError(f'--take must name runs of different markets, got data.seed {seeds}')
  if wide:
    check(wide)
    found, expected = ([(s['seed'], s['data']['seed'], s['market'], s['writer']) for s in of]
                       for of in (wide, runs))
    if found != expected or any(s['explain']['beams'] == 1 for s in wide):
      raise ValueError('--beams must name the runs of --take in their order, explained with '
                       'explain.beams above 1')


def joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """What is kept of judgements: of several, each row's mean, with the t interval over runs.

  Raises:
    ValueError: they do not judge the same systems.
  """
  first, *more = ({_of(r): r for r in run['rows']} for run in runs)
  if any(of.keys() != first.keys() for of in more):
    raise ValueError('--take must name runs with the same systems and metrics; explain all again')
  rows = [row if not more else row | over_runs([row, *(of[key] for of in more)])
          for key, row in first.items()]
  return {'runs': len(runs), 'rows': rows, 'examples': runs[0]['examples']}


def over_runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
  """The mean over runs and its 95% interval by Student's t; nothing where a run has no value."""
  found = [row['value'] for row in rows]
  if None in found:
    return dict.fromkeys(('value', 'low', 'high'))
  mean, half = t_interval(found)
  low, high = range_of('' if rows[0]['against'] else rows[0]['metric'])
  return {'value': mean, 'low': float(max(low, mean - half)), 'high': float(min(high, mean + half))}


def of_beams(greedy: Sequence[Mapping[str, Any]],
             wide: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the writer's metrics are with beams less what they are without, over runs."""
  out = []
  for key in sorted((p, m) for p in PERSPECTIVES for m in CHANGED):
    a, b = ([next(r for r in run['rows'] if _of(r) == (WRITER, None, *key))['value'] for run in of]
            for of in (greedy, wide))
    mean, half = t_interval([y - x for x, y in zip(a, b)])
    out.append({'perspective': key[0], 'metric': key[1], 'value': float(mean),
                'low': float(mean - half), 'high': float(mean + half)})
  return out


def beams(kept: Mapping[str, Any]) -> str:
  at = {(r['perspective'], r['metric']): r for r in kept['beams']['rows']}
  return markdown((f'{kept["beams"]["count"]} beams less the greedy text', *CHANGED), [
      (p, *(cell(at[p, m]) for m in CHANGED)) for p in PERSPECTIVES])


def _of(row: Mapping[str, Any]) -> tuple[Any, ...]:
  return tuple(row[k] for k in ('system', 'against', 'perspective', 'metric'))


PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'origin': origin, 'examples': examples, 'three': three, 'beams': beams,
    **{p: functools.partial(table, perspective=p) for p in ('preference', 'qualification')},
    **{f'{p}-differences': functools.partial(table, perspective=p, against=True)
       for p in ('preference', 'qualification')}}
MARK = re.compile(rf'(<!-- (\w+) ({"|".join(PARTS)}) -->\n).*?(<!-- end -->)', re.S)


def render(page: str) -> str:
  """The page with its tables and examples written from what is kept."""
  return MARK.sub(
      lambda m: f'{m[1]}{PARTS[m[3]](read_json(KEPT / f"{m[2]}.json"))}\n{m[4]}', page)


def commit_of(run: Path) -> str:
  """The commit at which a run's writer was trained."""
  record = read_record(run)
  about = run / record['store'] / record['artefacts']['writer'] / ABOUT
  return read_json(about)['provenance']['commit']


def main(argv: Sequence[str]) -> None:
  del argv
  if flags.FLAGS.take:
    runs = [*map(Path, flags.FLAGS.take)]
    wide = [*map(Path, flags.FLAGS.beams)]
    settings, with_beams = ([read_record(run)['settings'] for run in of] for of in (runs, wide))
    check(settings, with_beams)
    found = [read_json(run / 'reasons.json') for run in runs]
    kept = joined(found) | {'commit': ', '.join(sorted({*map(commit_of, runs)}))}
    if wide:
      kept['beams'] = {
          'count': with_beams[0]['explain']['beams'],
          'rows': of_beams(found, [read_json(run / 'reasons.json') for run in wide])}
    write_json(KEPT / f'{settings[0]["market"]["domain"]}.json', kept, indent=1)
  for page in PAGES:
    write_text(page, render(page.read_text()))


if __name__ == '__main__':
  flags.DEFINE_list('take', None, 'runs of one domain that experiments.explain judged')
  flags.DEFINE_list('beams', [], 'those runs, in their order, judged with explain.beams above 1')
  launch(main)
