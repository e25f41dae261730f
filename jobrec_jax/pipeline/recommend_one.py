"""Jobs for one candidate, or candidates for one job, from files, as text."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.files.records import read_entity, read_records
from jobrec_jax.data.tables.applied import Applied, read_applied
from jobrec_jax.pipeline.decision import Decisions, decide, in_words
from jobrec_jax.pipeline.load import LoadedRun
from jobrec_jax.pipeline.ranking_table import (
    candidates_table,
    ranked_alone,
    ranking_table,
    what_tau_binds,
)
from jobrec_jax.recommend import RankedCandidate, RankedJobs
from jobrec_jax.schema.files import null_for_nan
from jobrec_jax.schema.schema import PERSPECTIVES, Entity
from jobrec_jax.schema.words import printable
from jobrec_jax.scoring.policy import Alone
from jobrec_jax.scoring.shortlist import shortlist_size


@dataclasses.dataclass(frozen=True)
class Asked:
  """What is asked for.

  Attributes:
    tau: the eligibility asked for; None where there is no policy.
    top_k: how many to give, at most.
    catalogue: a file of jobs; '' for the run's own.
    applied: a table of applications, to be left out; '' for none.
    resolve: whether tau binds the mean over these candidates and this catalogue.
    as_json: for programs, not for people.
    explain: whether to say what decided and what would change it, and, where the run has a writer,
      why each job is wanted and the candidate eligible.
    retrieve: whether a shortlist is scored in full, not all jobs.
  """

  tau: float | None = 0.0
  top_k: int = 5
  catalogue: str = ''
  applied: str = ''
  resolve: bool = False
  as_json: bool = False
  explain: bool = False
  retrieve: bool = False


def jobs_for(run: LoadedRun, path: str, name: str, asked: Asked) -> tuple[str, list[str]]:
  """The best jobs for one candidate.

  Args:
    run: to recommend from.
    path, name: the file with the candidate, and the id where it holds several.
    asked: how.

  Returns:
    The text, and warnings.

  Raises:
    ValueError: a file or a setting is wrong.
  """
  known = run.catalogue
  candidate = read_entity(path, run.schema, 'candidate', known.sides.get('candidate'), name)
  jobs, warnings = read_jobs(run, asked.catalogue)
  without = None
  if asked.applied:
    applied = read_applied(asked.applied, known.log)
    without = applied.of([candidate.id])
    warnings += strangers(applied, run.jobs if jobs is None else jobs, asked.applied)
  tau = run.recommender.resolve(candidate, asked.tau, jobs, without) if asked.resolve else asked.tau
  alone = isinstance(run.policy, Alone)
  count = len(run.jobs if jobs is None else jobs)
  shortlist = shortlist_size(count, asked.top_k) if asked.retrieve else None
  (ranked,) = run.recommend(candidate, tau, asked.top_k, jobs, without, shortlist)
  warnings += [*ranked.notes, *unread([ranked.unread])]
  written = explained(run, candidate, ranked, jobs) if asked.explain and run.writer else []
  decided = None
  if asked.explain:
    decided = decide(run.recommender, candidate, tau, asked.top_k, jobs, without, shortlist)
  if asked.as_json:
    more = [({'written': written[i]} if written else {})
            | ({'decision': decided.jobs[i].as_json()} if decided else {})
            for i in range(len(ranked.jobs))]
    return json.dumps(null_for_nan({
        'tau': asked.tau, **({'ranked_by': run.policy.perspective} if alone else {}),
        **({'requirement': tau} if asked.resolve else {}),
        **({'scored': ranked.scored} if asked.retrieve else {}),
        'eligibility': ranked.eligibility, 'notes': warnings,
        'jobs': [dataclasses.asdict(job) | of for job, of in zip(ranked.jobs, more)],
        **({'next': _next(decided)} if decided else {})}), indent=2), warnings
  if decided:
    said = [{'decision': in_words(d, asked.top_k)} for d in decided.jobs]
    written = [of | more for of, more in zip(said, written or [{}] * len(said))]
  table = ranking_table(ranked, tau, run.policy, written)
  if decided and decided.next:
    table += (f'\nNext, {printable(decided.next.job_id)} ({printable(decided.next.title)}): '
              f'{printable(in_words(decided.next, asked.top_k, enters=True))}')
  if alone:
    return table, warnings
  said = what_tau_binds(count, run.list_length, asked.tau if asked.resolve else None)
  return f'{table}\n{said}', warnings


def _next(decided: Decisions) -> dict[str, Any] | None:
  """The first job that is not among the best, for programs."""
  found = decided.next
  return found and {'job_id': found.job_id, 'title': found.title} | found.as_json()


def explained(run: LoadedRun, candidate: Entity, ranked: RankedJobs,
              jobs: Sequence[Entity] | None) -> list[dict[str, str]]:
  """What the run's writer says of each ranked job, by perspective; '' where nothing can be said."""
  known = {job.id: job for job in (run.jobs if jobs is None else jobs)}
  chosen = tuple(run.schema.validate('job', known[job.job_id]) for job in ranked.jobs)
  none = np.zeros(0, np.int32)
  pairs = Dataset(run.schema, (run.schema.validate('candidate', candidate),), chosen,
                  Interactions(*[none] * 6))
  at = np.zeros(len(chosen), int), np.arange(len(chosen))
  texts = {p: run.writer.write(pairs, *at, p) for p in PERSPECTIVES} if chosen else {}
  return [{p: texts[p][i].text.strip() for p in texts} for i in range(len(chosen))]


def candidates_for(run: LoadedRun, path: str, job_id: str, by: str | None,
                   asked: Asked) -> tuple[str, list[str]]:
  """The best candidates of a file for one job of the catalogue; as `jobs_for`.

  Args:
    run: to recommend from.
    path: the file of candidates.
    job_id: of the job.
    by: 'qualification' or 'preference'; None for what `Policy.ranks_by` says.
    asked: how; tau has no say.
  """
  by = run.policy.ranks_by(by)
  found = read_records(path, run.schema, 'candidate', run.catalogue.sides.get('candidate'))
  jobs, warnings = read_jobs(run, asked.catalogue)
  people, warnings = list(found.entities), [*found.notes, *warnings]
  if asked.applied:
    applied = read_applied(asked.applied, run.catalogue.log)
    people = [c for c, ids in zip(people, applied.of([c.id for c in people])) if job_id not in ids]
  ranked: list[RankedCandidate] = []
  if people:
    ranked = run.recommender.candidates_for(job_id, people, asked.top_k, jobs, by)
  warnings += unread([c.unread for c in ranked])
  if asked.as_json:
    rows = [dataclasses.asdict(c) for c in ranked]
    for row in rows:
      del row['unread']  # among the notes on all of them
    return json.dumps(null_for_nan({'job': job_id, 'by': by, 'notes': warnings,
                                    'candidates': rows}), indent=2), warnings
  if isinstance(run.policy, Alone):
    return f'{candidates_table(ranked)}\n{ranked_alone(run.policy)}', warnings
  return (f'{candidates_table(ranked)}\nRanked by {by}. Preference is learnt among the jobs of a '
          'candidate: between candidates it compares loosely.'), warnings


def read_jobs(run: LoadedRun, path: str) -> tuple[tuple[Entity, ...] | None, list[str]]:
  """The jobs of a catalogue's file, None without one, and what of it was not read."""
  if not path:
    return None, []
  found = read_records(path, run.schema, 'job', run.catalogue.sides.get('job'))
  return found.entities, list(found.notes)


def strangers(applied: Applied, jobs: Sequence[Entity], path: str) -> list[str]:
  """A sentence where a table of applications names jobs that are none of these."""
  named, unknown = applied.strangers([job.id for job in jobs])
  return [f'{path}: {unknown} of {named} jobs are none of the catalogue'] if unknown else []


def unread(found: Iterable[Mapping[str, str]]) -> list[str]:
  """A sentence where texts were longer than what the experts read: which fields, and by how much.

  Args:
    found: of rankings, what was not read; those that were scored together share it.
  """
  said = dict.fromkeys(text for texts in found for text in texts.values())
  return [f'not read to the end: {"; ".join(said)}'] if said else []


def warn(warnings: Sequence[str]) -> str:
  """Warnings as lines that a terminal may show."""
  return '\n'.join(f'warning: {printable(w)}' for w in warnings)
