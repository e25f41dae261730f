"""What a ranking says of a pair and of a record in words, beside its numbers."""

from jobrec_jax.schema.align import FieldAlignment, align
from jobrec_jax.schema.comparators import AnyMemberOf, Contains, SetCoverage
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.schema.words import fold, folded


def reasons(schema: Schema, candidate: Entity, job: Entity) -> dict[str, list[str]]:
  """For each layer with verdicts, its fields in words: met, unmet by how much, or unknown.

  Words that one side asks for and the other lacks are named: 'skills met (2 of 3; missing: SQL)'.
  """
  return {l.layer.name: [_in_words(f, candidate, job) for f in l.fields if f.verdict is not None]
          for l in align(schema, candidate, job).layers if l.reasons()}


def _in_words(found: FieldAlignment, candidate: Entity, job: Entity) -> str:
  text, names = found.in_words(), lacking(found, candidate, job)
  if not names:
    return text
  said = f'missing: {", ".join(names)}'
  return f'{text[:-1]}; {said})' if text.endswith(')') else f'{text} ({said})'


def lacking(found: FieldAlignment, candidate: Entity, job: Entity) -> tuple[str, ...]:
  """The words of a field that are asked for and not there, as they are written.

  Of a share of the job's set or of the candidate's, its members that the other side lacks; of a
  category that a set must hold, or a set that must hold a category, what would have met it.
  """
  asked, had = job[found.field.job], [candidate[name] for name in found.field.candidate]
  match found.field.comparator:
    case SetCoverage(of='job' | 'candidate' as of) if asked is not None and had[0] is not None:
      wanted, there = (asked, had[0]) if of == 'job' else (had[0], asked)
      return tuple(word for word in wanted if fold(word) not in folded(there))
    case Contains() if found.verdict == 'unmet':
      return (asked,)
    case AnyMemberOf() if found.verdict == 'unmet':
      return asked
  return ()


def unmet_requirements(schema: Schema, candidate: Entity, job: Entity) -> list[str]:
  """Fields that are requirements, speak for qualification where they are met, and are unmet."""
  return [f.field.name for f in align(schema, candidate, job).fields()
          if f.verdict == 'unmet' and schema.is_hard(f.field)
          and f.field.speaks_to('qualification') and 'qualification' not in f.field.against]


def missing(schema: Schema, candidate: Entity) -> list[str]:
  """The candidate's attributes that prompts show and that have no value."""
  return [a.name for a in schema.candidate if a.rendered and candidate[a.name] is None]
