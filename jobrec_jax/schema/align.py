"""`align(schema, candidate, job)`: every aligned field compared, grouped by layer."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from jobrec_jax.schema.comparators import Comparison, Semantic, Verdict
from jobrec_jax.schema.schema import AlignedField, Entity, Layer, Schema
from jobrec_jax.schema.words import quoted


@dataclasses.dataclass(frozen=True, slots=True)
class FieldAlignment:
  """A field of the schema and how this candidate and this job compare on it."""

  field: AlignedField
  comparison: Comparison

  @property
  def verdict(self) -> Verdict | None:
    return self.comparison.verdict

  def in_words(self) -> str:
    """E.g. 'gpa unmet by 0.4', 'hours met by 3 hours', 'skills met (6 of 10)', 'major unknown'."""
    c = self.comparison
    if c.words:
      return f'{self.field.name} {c.verdict} ({quoted(c.words)})'
    if c.margin:
      unit = getattr(self.field.comparator, 'unit', '')
      return (f'{self.field.name} {c.verdict} by {amount(abs(c.margin))}'
              f'{" " + unit if unit else ""}')
    return f'{self.field.name} {c.verdict}'


def amount(x: float) -> str:
  """A number in three significant digits, so that few texts differ: 0.4, 12.5, 4240."""
  return f'{float(f"{x:.3g}"):.10g}'


@dataclasses.dataclass(frozen=True, slots=True)
class LayerAlignment:
  """The verdicts of one layer, with its counts. Semantic fields have no verdict, so no count."""

  layer: Layer
  fields: tuple[FieldAlignment, ...]

  def count(self, verdict: Verdict) -> int:
    return sum(f.verdict == verdict for f in self.fields)

  def reasons(self) -> list[str]:
    return [f.in_words() for f in self.fields if f.verdict is not None]


@dataclasses.dataclass(frozen=True, slots=True)
class Alignment:
  """How one candidate faces one job under a schema."""

  layers: tuple[LayerAlignment, ...]

  def fields(self) -> Iterator[FieldAlignment]:
    for layer in self.layers:
      yield from layer.fields


def fields_with_verdicts(schema: Schema) -> tuple[AlignedField, ...]:
  """The fields of `schema`, in its order, without those of free text."""
  return tuple(f for f in schema.fields if not isinstance(f.comparator, Semantic))


def align(schema: Schema, candidate: Entity, job: Entity) -> Alignment:
  """Compares `candidate` and `job` on every field of `schema`.

  Args:
    schema: the table of aligned fields.
    candidate: the candidate's record; missing attributes give `unknown`.
    job: the job's record; likewise.

  Returns:
    Verdict and margin for each field, grouped by layer, in the schema's order.
  """
  # List displays and bound methods: pairs are aligned by the hundred thousand.
  of_candidate, of_job = candidate.attributes.get, job.attributes.get
  return Alignment(tuple([
      LayerAlignment(layer, tuple([
          FieldAlignment(f, f.comparator.compare(
              tuple([of_candidate(name) for name in f.candidate]), of_job(f.job)))
          for f in layer.fields]))
      for layer in schema.layers]))


_CREDIT = {'met': 1.0, 'unknown': 0.5, 'unmet': 0.0}


def rule_score(alignment: Alignment, perspective: str) -> float:
  """The weighted share of fields met among those with a verdict that speak to `perspective`.

  `unknown` counts one half: it says nothing either way. A field that speaks against it counts what
  is left of 1. In [0, 1]; 0.5 without any such field.
  """
  total = weight = 0.0
  for layer in alignment.layers:
    for f in layer.fields:
      if f.comparison.verdict is not None and f.field.perspective in (perspective, 'both'):
        credit = _CREDIT[f.comparison.verdict]
        total += f.field.weight * (1 - credit if perspective in f.field.against else credit)
        weight += f.field.weight
  return total / weight if weight else 0.5


VERDICT_CODES = {'met': 0, 'unmet': 1, 'unknown': 2}


def verdict_codes(alignment: Alignment) -> list[int]:
  """A number for each field with a verdict, in the schema's order: 3 * field, and which it is."""
  verdicts = [f.verdict for f in alignment.fields() if f.verdict]
  return [3 * i + VERDICT_CODES[v] for i, v in enumerate(verdicts)]


def alignment_features(alignment: Alignment) -> np.ndarray:
  """Four numbers for each field with a verdict, for linear models.

  By how much a requirement is missed and by how much it is passed are numbers of their own: the
  first turns employers down, the second rarely moves them.

  Returns:
    [4 * fields] float32: met (1, 0), unknown (1, 0), and the margin in the field's unit, first
    where it is below 0, then where it is above (0 where it is not, or there is none).
  """
  row = []
  for f in alignment.fields():
    c = f.comparison
    if c.verdict is not None:
      margin = c.margin or 0.0
      row += (float(c.verdict == 'met'), float(c.verdict == 'unknown'), min(margin, 0.0),
              max(margin, 0.0))
  return np.array(row, np.float32)
