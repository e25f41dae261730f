"""Words of one side that meet no word of the other: misspelt, in other words, or simply not there.

It is asked of fields that compare words for being the same (same, any_of, contains, covers), after
`words.fold`. What means no word or any (`none` of any_of, `anything` of same) is not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jobrec_jax.schema.comparators import AnyMemberOf, Contains, Same, SetCoverage
from jobrec_jax.schema.schema import AlignedField, Entity, Schema
from jobrec_jax.schema.words import fold

SIDES = ('candidate', 'job')


class Word(NamedTuple):
  """A word as it was first written, and by how many records it is used, in any spelling."""

  written: str
  uses: int


Vocabulary = Mapping[str, Mapping[str, Word]]  # of a side: field -> folded word -> word


class Unmatched(NamedTuple):
  """Of one field and side: the words that meet none of the other side's.

  Attributes:
    field, side: whose words they are.
    words: the most used first.
    distinct, uses: of all words of the side, the unmatched among them.
  """

  field: str
  side: str
  words: tuple[Word, ...]
  distinct: int
  uses: int


def fields_of_words(schema: Schema) -> tuple[AlignedField, ...]:
  """The fields of `schema`, in its order, that compare words for being the same."""
  return tuple(f for f in schema.fields
               if isinstance(f.comparator, (AnyMemberOf, Contains, Same, SetCoverage))
               and schema.attribute('job', f.job).kind in ('category', 'set'))


def vocabulary(schema: Schema, side: str, entities: Sequence[Entity]) -> Vocabulary:
  """The words of a side, by field."""
  found = {}
  for field in fields_of_words(schema):
    known = found[field.name] = {}
    for entity in entities:
      for key, written in _words(field, side, entity).items():
        word = known.get(key)
        known[key] = Word(written, 1) if word is None else Word(word.written, word.uses + 1)
  return found


def unmatched(schema: Schema, candidate: Entity,
              jobs: Sequence[Entity] | Vocabulary) -> dict[str, tuple[str, ...]]:
  """The candidate's words that no job of a catalogue has, by field; fields without any are absent.

  Args:
    schema: the domain's table.
    candidate: a record.
    jobs: the catalogue, or its `vocabulary`, which serves many candidates.
  """
  known = jobs if isinstance(jobs, Mapping) else vocabulary(schema, 'job', jobs)
  found = {f.name: tuple(written for key, written in _words(f, 'candidate', candidate).items()
                         if key not in known[f.name]) for f in fields_of_words(schema)}
  return {name: words for name, words in found.items() if words}


def unmatched_words(schema: Schema, candidates: Sequence[Entity],
                    jobs: Sequence[Entity]) -> tuple[Unmatched, ...]:
  """For each field of words and each side what meets no word of the other side."""
  known = {side: vocabulary(schema, side, of) for side, of in zip(SIDES, (candidates, jobs))}
  return tuple(Unmatched(f.name, side, _apart(known[side][f.name], known[other][f.name]),
                         len(known[side][f.name]),
                         sum(word.uses for word in known[side][f.name].values()))
               for f in fields_of_words(schema) for side, other in zip(SIDES, SIDES[::-1]))


def _apart(words: Mapping[str, Word], others: Mapping[str, Word]) -> tuple[Word, ...]:
  """The most used first; those that are used alike stay in alphabetical order."""
  return tuple(sorted((words[key] for key in sorted(words) if key not in others),
                      key=lambda word: -word.uses))


def _words(field: AlignedField, side: str, entity: Entity) -> dict[str, str]:
  """The words of a record, as they are compared and as they are written."""
  return {key: word for name in field.attributes(side) for word in _members(entity[name])
          if (key := fold(word)) not in _no_words(field)}


def _members(value) -> Iterator[str]:
  for word in value if isinstance(value, tuple) else (value,):
    if isinstance(word, str):
      yield word


def _no_words(field: AlignedField) -> tuple[str, ...]:
  said = getattr(field.comparator, 'none', '') or getattr(field.comparator, 'anything', '')
  return ('', fold(said)) if said else ('',)
