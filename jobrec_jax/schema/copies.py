"""Records that are the same under several ids: a posting that was posted again, a person twice."""

from collections.abc import Sequence
import hashlib

import numpy as np

from jobrec_jax.schema.schema import Attribute, Entity, Schema, Value
from jobrec_jax.schema.words import fold, folded


def record_keys(schema: Schema, side: str, entities: Sequence[Entity]) -> np.ndarray:
  """[entities] int64: equal where all attributes are; -1 for a record without any attribute.

  Words are equal as `words.fold` has them, whatever the order of a set; texts but for case and
  white space.
  """
  attributes, numbers = schema.attributes(side), {}
  out = np.empty(len(entities), np.int64)
  for row, entity in enumerate(entities):
    values = [_compared(a, entity[a.name]) for a in attributes]
    if all(v is None for v in values):
      out[row] = -1
    else:  # digests, for the texts of all records would be many
      key = hashlib.blake2b(repr(values).encode(errors='surrogatepass'), digest_size=16).digest()
      out[row] = numbers.setdefault(key, len(numbers))
  return out


def copies(schema: Schema, side: str, entities: Sequence[Entity]) -> tuple[tuple[int, ...], ...]:
  """Groups of at least two records that are equal in every attribute, by index, in their order.

  Records without any attribute are no copies of each other.
  """
  groups: dict[int, list[int]] = {}
  for row, key in enumerate(record_keys(schema, side, entities).tolist()):
    groups.setdefault(key, []).append(row)
  return tuple(tuple(rows) for key, rows in groups.items() if key >= 0 and len(rows) > 1)


def _compared(attribute: Attribute, value: Value) -> Value | list[str]:
  if isinstance(value, tuple):
    return sorted(folded(value)) if all(isinstance(m, str) for m in value) else repr(value)
  if isinstance(value, str):
    return ' '.join(value.casefold().split()) if attribute.kind == 'text' else fold(value)
  return int(value) if isinstance(value, float) and value.is_integer() else value  # 1.0 is 1
