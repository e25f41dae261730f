"""Who has applied to what, from any table with ids of jobs: what a ranking may leave out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jobrec_jax.data.tables.cells import id_of, truth
from jobrec_jax.data.tables.definition import LogTable
from jobrec_jax.data.tables.reader import decisions
from jobrec_jax.data.tables.rows import read_table

CANDIDATES = ('candidate', 'candidate_id', 'user', 'user_id', 'student_id')
JOBS = ('job', 'job_id', 'item', 'item_id')
WANTED = ('preference', 'label_pref', 'applied')


class Applied(NamedTuple):
  """Applications.

  Attributes:
    jobs: of each candidate by id, the ids of jobs; where the file names no candidates, all of them
      stand under None, and count for everyone.
  """

  jobs: Mapping[str | None, frozenset[str]]

  def of(self, candidate_ids: Sequence[str]) -> list[frozenset[str]]:
    """The ids of jobs to leave out, of each candidate."""
    everyone = self.jobs.get(None, frozenset())
    return [self.jobs.get(name, everyone) for name in candidate_ids]

  def strangers(self, job_ids: Sequence[str]) -> tuple[int, int]:
    """How many ids of jobs the file has, and how many of them are none of these."""
    named = frozenset().union(*self.jobs.values())
    return len(named), len(named.difference(job_ids))


def read_applied(path: str | Path, log: LogTable | None = None) -> Applied:
  """Reads a table of applications.

  Columns are those of the schema file's interactions, where the file has them, or go by one of the
  usual names. Of a table that says which pairs were wanted, those count; else every row does.

  Args:
    path: any file that `rows.read_table` reads.
    log: how the user's own interactions are written, where the data came from such.

  Raises:
    ValueError: with the file: it has no column of jobs, or a row is wrong.
  """
  table = read_table(path)
  own = (log.candidate, log.job) if log else ()
  candidate, job = (next((c for c in names if c in table.columns), None)
                    for names in ((*own[:1], *CANDIDATES), (*own[1:], *JOBS)))
  if job is None:
    raise ValueError(f'{table.path}: must have a column with ids of jobs, one of '
                     f'{[*own[1:], *JOBS]}, got {list(table.columns)}')
  at = {c: i for i, c in enumerate(table.columns)}
  said = log.said if log else ()
  wanted = next((c for c in WANTED if c in at), None)
  jobs: dict[str | None, set[str]] = {}
  for place, row in table.rows:
    try:
      if said and set(said) <= set(at) and (log.preference or log.funnel):
        counts = decisions(log, row, at)[0] == 1
      else:
        counts = wanted is None or _wanted(wanted, row[at[wanted]])
    except ValueError as error:
      raise ValueError(f'{place}: {error}') from error
    name = id_of(row[at[job]])
    if not name:
      raise ValueError(f'{place}: {job} must be the id of a job, got {row[at[job]]!r}')
    if counts:
      jobs.setdefault(id_of(row[at[candidate]]) if candidate else None, set()).add(name)
  return Applied({name: frozenset(ids) for name, ids in jobs.items()})


def _wanted(column: str, cell: Any) -> bool:
  found = truth(cell)
  if found is None and id_of(cell).strip() not in ('', '-1'):
    raise ValueError(f'{column} must be yes or no, true or false, 1 or 0, or empty, got '
                     f'{str(cell)[:80]!r}')
  return found is True
