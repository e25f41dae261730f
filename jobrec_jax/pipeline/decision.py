"""What decided a ranking: how the requirement moved each job, and what change would move it.

Nothing here is written by a model or estimated. The candidate's record is changed in one attribute
at a time, the best jobs are ranked again under the same requirement, and what is told is what came
out. So it is true of the policy; whether the policy is right is another question.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jobrec_jax.recommend import Recommender
from jobrec_jax.schema.comparators import OrdinalAtLeast
from jobrec_jax.schema.schema import Attribute, Entity, Schema, Value
from jobrec_jax.schema.words import fold, folded

AMONG = 100  # best jobs among which places are told
NEAREST, MEMBERS = 3, 30  # numbers on either side, and members of sets, that are tried


class Change(NamedTuple):
  """Another value of one attribute of the candidate.

  Attributes:
    attribute: its name.
    before, after: the values; None for none.
    steps: how far it is: levels of an ordered category, of a number the values that jobs ask for
      up to there, else 1.
  """

  attribute: str
  before: Value
  after: Value
  steps: int

  def in_words(self) -> str:
    before, after = self.before, self.after
    if isinstance(after, tuple):
      before = before or ()
      lost = [m for m in before if m not in after]
      return f'{self.attribute} {"without" if lost else "with"} {(lost or after[-1:])[0]}'
    if after is None:
      return f'without {self.attribute}'
    return f'{self.attribute} {_shown(before)} → {_shown(after)}'


class Decision(NamedTuple):
  """Why a job is among the best k, or not.

  Attributes:
    job_id, title: of the job.
    by_preference: its place by s_pref alone among the `AMONG` best, from 1; None without that
      expert.
    change: what moves it out, or in: of the smallest changes that do, the one that moves it
      furthest; None where none of those tried does.
    before, after: (s_pref, p_qual) without and with the change.
  """

  job_id: str
  title: str
  by_preference: int | None
  change: Change | None
  before: tuple[float, float]
  after: tuple[float, float] | None

  def as_json(self) -> dict[str, Any]:
    changed = None
    if self.change is not None:
      changed = self.change._asdict() | {'preference': self.after[0],
                                         'qualification': self.after[1]}
    return {'by_preference': self.by_preference, 'moves_with': changed}


class Decisions(NamedTuple):
  """Of the best k what moves each out; of the next one what moves it in, None without a next."""

  jobs: tuple[Decision, ...]
  next: Decision | None


def decide(recommender: Recommender, candidate: Entity, tau: float | None, top_k: int,
           jobs: Sequence[Entity] | None = None,
           without: Sequence[Collection[str]] | None = None,
           shortlist: int | None = None) -> Decisions:
  """Ranks the best jobs again for every changed candidate.

  Args:
    recommender: of a run.
    candidate: whom to rank for.
    tau, top_k, jobs, without, shortlist: what was asked for, as of `recommend`.

  Raises:
    ValueError: as `Recommender.recommend`.
  """
  among = max(AMONG, top_k + 1) if shortlist is None else min(shortlist, max(AMONG, top_k + 1))
  (ranked,) = recommender.recommend(candidate, tau, among, jobs, without, shortlist)
  if not ranked.jobs:
    return Decisions((), None)
  known = {job.id: job for job in (recommender.jobs if jobs is None else jobs)}
  best = [known[job.job_id] for job in ranked.jobs]
  tried = changes(recommender.schema, candidate, best[:top_k + 1])
  people = [candidate, *(Entity(candidate.id, {**candidate.attributes, c.attribute: c.after})
                         for c in tried)]
  found = recommender.score(people, best)
  scores, _ = recommender.policy.at(found.lam, found.s_pref, found.z_qual, tau)
  places = _places(scores)
  shown = places <= top_k
  wanted = _places(found.s_pref[:1])[0]

  def decision(j: int) -> Decision:
    moved = np.flatnonzero(shown[1:, j] != shown[0, j])
    pair = [(float(p), float(q)) for p, q in zip(found.s_pref[:, j], found.p_qual[:, j])]
    change = after = None
    if len(moved):
      far = abs(places[1:, j] - places[0, j])
      first = min(moved, key=lambda c: (tried[c].steps, -far[c]))
      change, after = tried[first], pair[1 + first]
    place = None if np.isnan(found.s_pref[0, j]) else int(wanted[j])
    return Decision(best[j].id, ranked.jobs[j].title, place, change, pair[0], after)
  decided = [decision(j) for j in range(min(top_k + 1, len(best)))]
  return Decisions(tuple(decided[:top_k]), next(iter(decided[top_k:]), None))


def _places(scores: np.ndarray) -> np.ndarray:
  """The place of each column in its row, from 1, best first; of equals the first column's first."""
  return np.argsort(np.argsort(-scores, axis=1, kind='stable'), axis=1) + 1


def in_words(decision: Decision, top_k: int, enters: bool = False) -> str:
  """A decision as a line: 'place 4 by preference alone; leaves the best 5 with gpa 3.4 → 2.8'."""
  place = decision.by_preference
  said = [] if place is None else [f'place {place} by preference alone']
  verb = 'enters' if enters else 'leaves'
  if decision.change is None:
    said.append(f'no single change tried {"moves it into" if enters else "takes it out of"} the '
                f'best {top_k}')
  else:
    moves = [f'{name} {old:.2f} → {new:.2f}' for name, old, new in
             zip(('preference', 'p_qual'), decision.before, decision.after) if old == old]
    said.append(f'{verb} the best {top_k} with {decision.change.in_words()} ({", ".join(moves)})')
  return '; '.join(said)


def changes(schema: Schema, candidate: Entity, jobs: Sequence[Entity]) -> list[Change]:
  """Other values of one attribute each, the nearest first, then in the schema's order.

  A category takes every value that is allowed, or that these jobs have where any is; a set loses a
  member, or gains one that they ask for; a number becomes one of the nearest that they ask for; a
  text is left out.

  Args:
    schema: of the domain.
    candidate: the record.
    jobs: which are to be moved.
  """
  candidate = schema.validate('candidate', candidate)
  found = []
  for attribute in schema.candidate:
    fields = [f for f in schema.fields if attribute.name in f.candidate]
    if not (fields or attribute.rendered):
      continue
    facing = [job[f.job] for f in fields for job in jobs if job[f.job] is not None]
    levels = next((f.comparator.levels for f in fields
                   if isinstance(f.comparator, OrdinalAtLeast)), ())
    own = candidate[attribute.name]
    found += [Change(attribute.name, own, value, steps)
              for value, steps in _others(attribute, own, facing, levels)]
  return sorted(found, key=lambda c: c.steps)


def _others(attribute: Attribute, own: Value, facing: Sequence[Value],
            levels: Sequence[str]) -> Iterator[tuple[Value, int]]:
  """Other values of an attribute, and how far they are."""
  if attribute.kind == 'boolean':
    yield from ((value, 1) for value in (False, True) if value is not own)
  elif attribute.kind == 'category':
    for value in attribute.values or dict.fromkeys(_members(facing)):
      if own is None or fold(value) != fold(own):
        both = own in levels and value in levels
        yield value, abs(levels.index(value) - levels.index(own)) if both else 1
  elif attribute.kind == 'set':
    has = own or ()
    yield from ((tuple(m for m in has if m != lost), 1) for lost in has)
    new = [m for m in dict.fromkeys(_members(facing)) if fold(m) not in folded(has)
           and (not attribute.values or m in attribute.values)]
    yield from (((*has, m), 1) for m in new[:MEMBERS])
  elif attribute.kind in ('number', 'integer'):
    asked = sorted({x for x in facing if isinstance(x, (int, float))})
    around = asked[:1] + asked[-1:] if own is None else [x for x in asked if x != own]
    above = [x for x in around if own is None or x > own]
    below = [x for x in around if own is not None and x < own][::-1]
    for side in (above, below):
      yield from ((x, n) for n, x in enumerate(side[:NEAREST], 1) if attribute.problem(x) is None)
  elif own and not attribute.required:
    yield None, 1


def _members(values: Sequence[Value]) -> Iterator[str]:
  """Words and the members of sets, flat."""
  for value in values:
    yield from value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()


def _shown(value: Value) -> str:
  return 'none' if value is None else f'{value:g}' if isinstance(value, float) else str(value)
