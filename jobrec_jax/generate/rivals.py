"""Reasons that no model writes: templates of the alignment, and attribution by deletion."""

from collections.abc import Mapping, Sequence

from jobrec_jax.generate.causes import first_spans, reason_of, telling
from jobrec_jax.generate.claims import Sayable, reason


def template(said: Sequence[Sayable], count: int) -> str:
  """So many verdicts, those unmet first, in the schema's order; nothing of text."""
  verdicts = [s for s in said if not s.quotes]
  unmet = [s for s in verdicts if s.words[len(s.field):].split()[0] == 'unmet']
  chosen = [*unmet, *(s for s in verdicts if s not in unmet)][:count]
  return reason([s.words for s in said if s in chosen]) if chosen else ''


def attribution(said: Sequence[Sayable], moved: Mapping[str, float], count: int) -> str:
  """So many fields without which the score moves most, those first that can say which way.

  Args:
    said: what may be said of the pair.
    moved: by field, by how much the score falls without it.
    count: of the claims.
  """
  fields = telling(said, moved, count, least=0.0)
  rest = sorted((s.field for s in said if s.field not in fields), key=lambda f: -abs(moved[f]))
  return reason_of(said, [*fields, *rest][:count], moved, first_spans)
