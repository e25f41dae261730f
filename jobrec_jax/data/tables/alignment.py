"""Which columns of candidates and jobs face each other, and by which comparator."""

from collections.abc import Mapping, Sequence
import dataclasses

from jobrec_jax.data.tables import hints
from jobrec_jax.data.tables.kinds import Guess, ladder, natural
from jobrec_jax.schema.comparators import NAMES
from jobrec_jax.schema.schema import Attribute
from jobrec_jax.schema.words import fold

NUMBERS = ('number', 'integer')
_ALIKE = 0.6  # the least likeness of names of numbers and booleans
_SHARED = 0.5  # the least share of words that two columns have in common, of the smaller's


@dataclasses.dataclass(frozen=True)
class Facing:
  """Two columns that face each other.

  Attributes:
    name: of the field.
    candidate: names of the candidate's attributes.
    job: name of the job's attribute.
    compare: name of the comparator.
    why: what was seen, and what else it may be.
    more: other keys of the field.
  """

  name: str
  candidate: tuple[str, ...]
  job: str
  compare: str
  why: str
  more: Mapping[str, str] = dataclasses.field(default_factory=dict)


def align(candidate: Sequence[Guess], job: Sequence[Guess]) -> list[Facing]:
  """The columns that face each other: by their names, by words that they share, by both texts."""
  found: list[Facing] = []
  ours, theirs = ([g for g in side if g.attribute is not None] for side in (candidate, job))
  for asked in theirs:
    scored = [(*_score(has, asked), has) for has in ours]
    good = [(s, why, has) for s, why, has in scored if s > 0]
    if asked.attribute.kind in (*NUMBERS, 'boolean'):
      good = sorted(good, key=lambda x: -x[0])[:1]
    elif asked.attribute.kind == 'set':  # several categories are compared as one field
      several = [x for x in good if x[2].attribute.kind == 'category']
      good = [x for x in good if x not in several]
      if several:
        names = tuple(has.attribute.name for _, _, has in several)
        found.append(_facing(found, names, asked, 'any_of', several[0][1]))
    for _, why, has in good:
      compare, other = _comparator(has, asked)
      more = {'anything': _anything(has, asked)} if compare == 'same' else {}
      found.append(_facing(found, (has.attribute.name,), asked, compare, why + other,
                           {k: v for k, v in more.items() if v}))
  stories = [[g for g in side if g.attribute.kind == 'text'] for side in (ours, theirs)]
  if all(stories):
    names = tuple(g.attribute.name for g in stories[0])
    longest = next((g for g in stories[1] if g.why.startswith('long')), stories[1][0])
    found.append(_facing(found, names, longest, 'text', 'has no verdict: the model reads them'))
  return found


def _facing(found: Sequence[Facing], candidate: tuple[str, ...], asked: Guess, compare: str,
            why: str, more: Mapping[str, str] | None = None) -> Facing:
  name, count = asked.attribute.name, 1
  while name in {f.name for f in found}:
    count += 1
    name = f'{asked.attribute.name}_{count}'
  return Facing(name, candidate, asked.attribute.name, compare, why, more or {})


def _score(has: Guess, asked: Guess) -> tuple[float, str]:
  """How well two columns face each other, 0 for not at all, and why."""
  kinds = [has.attribute.kind], asked.attribute.kind
  fits = any(c.takes(*kinds) for classes in NAMES.values() for c in classes)
  if not fits or kinds[1] == 'text':
    return 0.0, ''
  alike = hints.likeness(has.column, asked.column)
  if kinds[1] in (*NUMBERS, 'boolean'):
    return (alike, 'names are alike') if alike >= _ALIKE else (0.0, '')
  shared, fewer = len(has.words & asked.words), min(len(has.words), len(asked.words))
  if (shared >= 2 and shared >= _SHARED * fewer) or (shared and alike >= _ALIKE):
    return 1 + shared / fewer, f'{shared} words in common'
  return 0.0, ''


def _comparator(has: Guess, asked: Guess) -> tuple[str, str]:
  """The name of a comparator, and what else it may be."""
  kinds = has.attribute.kind, asked.attribute.kind
  if kinds[0] in NUMBERS:
    if hints.says(asked.column, hints.MOST) or hints.says(has.column, hints.LEAST | hints.WISHED):
      return 'at_most', "; or 'at_least', or 'within' with by"
    return 'at_least', "; or 'at_most', or 'within' with by"
  if kinds == ('category', 'category'):
    values = has.attribute.values, asked.attribute.values
    if all(values) and ladder((*values[0], *values[1])):
      return 'at_least', '; their values ascend'
    if all(values) and hints.says(asked.column, hints.LEAST):
      return 'at_least', '; check that their values ascend'
    return 'same', "; or 'at_least' where their values ascend, 'near' with distances"
  return {('category', 'set'): ('any_of', ''), ('set', 'category'): ('contains', ''),
          ('set', 'set'): ('covers', "; needed = 0.5 of = 'job'")}.get(kinds, ('same', ''))


def _anything(has: Guess, asked: Guess) -> str:
  """A word of either side that stands for all."""
  words = (*has.attribute.values, *asked.attribute.values)
  return next((w for w in words if fold(w) in hints.ANYTHING), '')


def widened(candidate: Sequence[Guess], job: Sequence[Guess], fields: Sequence[Facing]
            ) -> tuple[list[Guess], list[Guess]]:
  """The guesses, those that face each other with the same range and the same closed words."""
  sides = {side: {g.attribute.name: g for g in guesses if g.attribute is not None}
           for side, guesses in (('candidate', candidate), ('job', job))}
  for _ in range(len(sides['candidate']) + len(sides['job'])):  # what is wider widens others
    before = {side: dict(known) for side, known in sides.items()}
    for field in fields:
      for name in field.candidate:
        _together(sides['candidate'], name, sides['job'], field.job)
    if before == sides:
      break
  return tuple([g if g.attribute is None else sides[side][g.attribute.name] for g in guesses]
               for side, guesses in (('candidate', candidate), ('job', job)))


def _together(ours: dict[str, Guess], mine: str, theirs: dict[str, Guess], other: str) -> None:
  one, two = ours[mine].attribute, theirs[other].attribute
  if one.kind in NUMBERS and two.kind in NUMBERS:
    change = {'low': min(one.low, two.low), 'high': max(one.high, two.high)}
  elif one.values and two.values:
    change = {'values': _union(one, two)}
  else:
    return
  ours[mine] = dataclasses.replace(ours[mine], attribute=dataclasses.replace(one, **change))
  theirs[other] = dataclasses.replace(theirs[other], attribute=dataclasses.replace(two, **change))


def _union(one: Attribute, other: Attribute) -> tuple[str, ...]:
  words: Mapping[str, str] = {}
  for word in (*one.values, *other.values):
    words.setdefault(fold(word), word)
  return tuple(sorted(words.values(), key=ladder(words.values()) or natural))
