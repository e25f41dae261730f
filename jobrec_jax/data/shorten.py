"""Records as token blocks, and what of a record is read whose block is longer than allowed.

A block that is cut at its end loses whole fields to one long text before them. Here the longest
free text loses its end first, token by token, as water levels out: texts end up equally long, and
short ones stay whole. Then the longest set loses members; then whole attributes go, from the last.
What is left is rendered and tokenised like any record, so half a number is never read as a number.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

from jobrec_jax.schema.render import is_missing, render_entity, rendered_attributes
from jobrec_jax.schema.schema import Attribute, Entity, Schema

_AT_A_TIME = 4096  # records that are tokenised, for encodings are large


class Encoded(NamedTuple):
  """Token blocks of records.

  Attributes:
    rows: the ids of each.
    cut: how many were longer than allowed.
    longest: the most tokens that one had, at least 1.
    unread: what is not read of those that were cut, in words; '' where none was.
  """

  rows: list[np.ndarray]
  cut: int
  longest: int
  unread: str


def encode_records(schema: Schema, side: str, entities: Sequence[Entity],
                   tokenizer: tokenizers.Tokenizer, allowed: int,
                   layout: str = 'schema') -> Encoded:
  """The blocks of a side's records, of at most `allowed` tokens; see the module."""
  def render(entity: Entity) -> str:
    return render_entity(schema, side, entity, layout)

  rows, cut, beyond, longest, lost = [], 0, 0, 1, Counter()
  for start in range(0, len(entities), _AT_A_TIME):
    part = entities[start:start + _AT_A_TIME]
    read = [np.asarray(e.ids, np.int32) for e in tokenizer.encode_batch(
        [render(e) for e in part], add_special_tokens=False)]
    longest = max(longest, *map(len, read))
    long = [i for i, row in enumerate(read) if len(row) > allowed]
    if long:
      shorter, names = shorten([part[i] for i in long], rendered_attributes(schema, side, layout),
                               render, tokenizer, allowed)
      cut, lost = cut + len(long), lost + names
      beyond += sum(len(read[i]) - allowed for i in long)
      for i, row in zip(long, shorter):
        read[i] = row
    rows += read
  names = ', '.join(f'{name} ({n})' if cut > 1 else name for name, n in lost.most_common())
  unread = (f'{names or "its end"} of {cut} of {len(entities)} {side}s '
            f'({beyond} tokens beyond {allowed}, the longest has {longest})') if cut else ''
  return Encoded(rows, cut, longest, unread)


def shorten(entities: Sequence[Entity], attributes: Sequence[Attribute],
            render: Callable[[Entity], str], tokenizer: tokenizers.Tokenizer,
            allowed: int) -> tuple[list[np.ndarray], Counter]:
  """Token blocks of records that are too long, of at most `allowed` tokens.

  Args:
    entities: the records.
    attributes: those that their block shows, in the block's order.
    render: a record's block as text.
    tokenizer: of the text.
    allowed: tokens; a record without any attribute may still have more.

  Returns:
    The ids of each record's block; and of each attribute, by name, how many records it is not read
    to its end in.
  """
  ends = _ends(entities, attributes, tokenizer)
  records = [_Shortened(e, attributes, of) for e, of in zip(entities, ends)]
  rows, waiting = [np.zeros(0, np.int32)] * len(records), list(range(len(records)))
  while waiting:
    encoded = tokenizer.encode_batch([render(records[i].entity) for i in waiting],
                                     add_special_tokens=False)
    for i, encoding in zip(waiting, encoded):
      rows[i] = np.asarray(encoding.ids, np.int32)
    waiting = [i for i in waiting if records[i].cut(len(rows[i]) - allowed)]
  return rows, Counter(name for r in records for name in r.lost)


def levelled(lengths: Sequence[int], by: int) -> list[int]:
  """The lengths after `by` units went, each from what was then the longest; at least 0 each."""
  left = max(0, sum(lengths) - by)
  level, rest = 0, left
  for n, length in enumerate(sorted(lengths)):  # the shortest stay whole while all reach them
    share = rest // (len(lengths) - n)
    if share < length:
      level = share
      break
    level, rest = length, rest - length
  out = [min(length, level) for length in lengths]
  extra = left - sum(out)
  for i, length in enumerate(lengths):
    if extra and length > level:
      out[i], extra = out[i] + 1, extra - 1
  return out


def _ends(entities: Sequence[Entity], attributes: Sequence[Attribute],
          tokenizer: tokenizers.Tokenizer) -> list[dict[str, list[int]]]:
  """Of each record's texts and sets by name: at which characters their tokens end."""
  found, texts, places = [{} for _ in entities], [], []
  for at, entity in enumerate(entities):
    for a in attributes:
      value = entity[a.name]
      if a.kind in ('text', 'set') and value and not is_missing(value):
        texts.append(_text(value))
        places.append((at, a.name))
  for (at, name), encoding in zip(places, tokenizer.encode_batch(texts, add_special_tokens=False)):
    if encoding.offsets:
      found[at][name] = [end for _, end in encoding.offsets]
  return found


def _text(value: str | tuple[str, ...]) -> str:
  """A value as a text of its own, in characters of which its ends are counted."""
  return ', '.join(value) if isinstance(value, tuple) else ' '.join(value.split())


class _Shortened:
  """A record that gives up its values, bit by bit.

  Attributes:
    entity: what is left of it.
    lost: the attributes that it does not have in full any more, by name.
  """

  def __init__(self, entity: Entity, attributes: Sequence[Attribute], ends: dict[str, list[int]]):
    self.entity = entity
    kinds = {a.name: a.kind for a in attributes}
    self.lost: set[str] = set()
    self._whole = self.entity
    self._pools = [{name: of for name, of in ends.items() if kinds[name] == kind}
                   for kind in ('text', 'set')]
    self._rest = [a.name for a in attributes if a.name not in ends
                  and not is_missing(self.entity[a.name])]

  def cut(self, excess: int) -> bool:
    """Gives up `excess` tokens of what goes first; False where there is none to give up."""
    if excess <= 0:
      return False
    pool = next((p for p in self._pools if any(p.values())), None)
    if pool is not None:
      kept = levelled([len(ends) for ends in pool.values()], excess)
      self._take({name: self._start(name, ends[:n])
                  for (name, ends), n in zip(pool.items(), kept) if n < len(ends)})
      pool.update({name: ends[:n] for (name, ends), n in zip(pool.items(), kept)})
    elif self._rest:
      self._take({self._rest.pop(): None})
    else:
      return False
    return True

  def _start(self, name: str, ends: list[int]) -> str | tuple[str, ...] | None:
    """What is left of a value whose tokens end there: whole members of a set, one at least."""
    value, end = self._whole[name], ends[-1] if ends else 0
    if not end:  # not even an empty member
      return None
    if not isinstance(value, tuple):
      return _text(value)[:end].rstrip() or None
    reach = np.cumsum([len(member) + 2 for member in value]) - 2
    return value[:int((reach <= end).sum())] or None

  def _take(self, values: dict) -> None:
    self.lost |= values.keys()
    self.entity = Entity(self.entity.id, {**self.entity.attributes, **values})
