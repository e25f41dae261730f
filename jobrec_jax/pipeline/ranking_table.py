"""Rankings as text for people; whatever came from data is shown without control characters."""

from collections.abc import Mapping, Sequence

from jobrec_jax.recommend import DOUBTED, RankedCandidate, RankedJobs
from jobrec_jax.schema.words import printable
from jobrec_jax.scoring.policy import Alone, Policy

# How reasons and decisions are called.
WRITTEN = {'decision': 'decided', 'preference': 'wanted', 'qualification': 'eligible'}
FAR = 1.5  # a catalogue so many times as long, or as short, as stage 2's lists moves C


def ranking_table(ranked: RankedJobs, tau: float | None,
                  policy: Policy | Alone | None = None,
                  written: Sequence[Mapping[str, str]] = ()) -> str:
  """The ranking as aligned text, each job's reasons below it, and what of tau `policy` heeds.

  `lift` is what eligibility adds to preference in the score. `written` are what decided on each
  job, and reasons by perspective where a writer wrote some.
  """
  titled = any(j.title != j.job_id for j in ranked.jobs)
  columns = ('rank', 'job', *(('title',) if titled else ()), 'score', 'preference', 'p_qual',
             'lift')
  rows = [((str(i + 1), j.job_id, *((j.title,) if titled else ()),
            *map(_number, (j.score, j.preference, j.qualification, j.score - j.preference))),
           _details(j.reasons, j.contradicted, j.copies)
           | {WRITTEN[p]: [text] for p, text in (written[i] if written else {}).items()})
          for i, j in enumerate(ranked.jobs)]
  table = _table(columns, rows) + shortlisted(*ranked.scored)
  if isinstance(policy, Alone):
    return f'{table}\n{ranked_alone(policy)}'
  asked = f'asked for {tau:.6g}' if tau else 'no requirement'
  if policy and 0 < tau < policy.knots[0] and policy.constraint == 'inequality':
    asked += f', but below {policy.knots[0]:.4g} nothing is required'
  what = f'{ranked.eligibility:.3f} ({asked})' if ranked.jobs else 'no job is left'
  return f'{table}\nEligibility C of the whole list: {what}'


def shortlisted(full: int, jobs: int) -> str:
  """A line on a shortlist, where one was made: how many of the jobs were scored in full."""
  if full == jobs:
    return ''
  return (f'\nA shortlist: {full:,} of {jobs:,} jobs were scored in full; C of all is an '
          'estimate.')


def candidates_table(ranked: Sequence[RankedCandidate]) -> str:
  """The candidates for a job as aligned text, each one's reasons below."""
  columns = ('rank', 'candidate', 'p_qual', 'preference')
  rows = [((str(i + 1), c.candidate_id, *map(_number, (c.qualification, c.preference))),
           _details(c.reasons, c.contradicted) | ({'warning': list(c.notes)} if c.notes else {}))
          for i, c in enumerate(ranked)]
  return _table(columns, rows)


def ranked_alone(alone: Alone) -> str:
  """What to know of a ranking by one expert, in a sentence."""
  by = 'preference' if alone.perspective == 'preference' else 'qualification (p_qual)'
  return f'Ranked by {by} alone, without a requirement τ: {alone}.'


def _number(value: float) -> str:
  """Three decimals; a dash for what no expert says."""
  return f'{value:.3f}' if value == value else '–'


def what_tau_binds(jobs: int, list_length: int, asked: float | None = None) -> str:
  """What to know of tau, in a sentence or two.

  Args:
    jobs: of the catalogue.
    list_length: jobs in a list of stage 2.
    asked: the mean C for which another requirement was found; None where tau is the policy's own.
  """
  if asked is not None:
    return (f'τ {asked:.6g} binds the mean C over these candidates, each with all jobs of this '
            'catalogue: the requirement above reaches it.')
  said = (f'τ binds the mean of C over a population of lists as long as those of stage 2, '
          f'{list_length} jobs: one list has another C.')
  if not list_length / FAR <= jobs <= list_length * FAR:
    said += (f' C moves with the length, and this catalogue has {jobs} jobs: --resolve asks for '
             'the mean over it.')
  return said


def _details(reasons: dict[str, list[str]], contradicted: Sequence[str],
             copies: Sequence[str] = ()) -> dict[str, list[str]]:
  """What stands below a row, by what it is called."""
  details = dict(reasons)
  if contradicted:
    details['doubtful'] = [f'p_qual is above {DOUBTED:g} and requirements are unmet: '
                           + ', '.join(contradicted)]
  if copies:
    details['copies'] = list(copies)
  return details


def _table(columns: Sequence[str],
           rows: Sequence[tuple[tuple[str, ...], dict[str, list[str]]]]) -> str:
  """Args: rows: the cells of each, and what stands below it."""
  cells = [tuple(map(printable, row)) for row, _ in rows]
  widths = [max(map(len, column)) for column in zip(columns, *cells)]

  def line(cells: Sequence[str]) -> str:
    return '  '.join(c.ljust(w) if name in ('job', 'title', 'candidate') else c.rjust(w)
                     for name, c, w in zip(columns, cells, widths)).rstrip()
  lines = [line(columns)]
  for row, (_, details) in zip(cells, rows):
    lines.append(line(row))
    width = max(map(len, details), default=0)
    lines += [f'{"":{widths[0]}}  {printable(name).ljust(width)}  {printable(", ".join(words))}'
              for name, words in details.items()]
  return '\n'.join(lines)
