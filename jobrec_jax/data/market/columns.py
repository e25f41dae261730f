"""Entities of the simulated market as columns of codes, and the margins of pairs computed on them.

Columns are what the truth is computed from; records (`entities`) are what a model may read. A
blank attribute is blank in the record alone: the truth knows what stands behind it.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.market.domain import GRADE, Context, Domain, Latents, draw_latents
from jobrec_jax.data.market.grammar import Style
from jobrec_jax.schema import streams
from jobrec_jax.schema.comparators import (
    AnyMemberOf,
    AtLeast,
    Contains,
    OrdinalAtLeast,
    Same,
    SetCoverage,
)
from jobrec_jax.schema.schema import AlignedField, Entity


@dataclasses.dataclass(frozen=True)
class Columns:
  """n entities of one side.

  Attributes:
    domain, side, first, n: whose and which; `first` is the index of the first.
    latents: what lies behind them.
    codes: of each attribute, as its source draws them.
    blank: of each optional attribute, [n] bool.
    style: how texts are told.
    fit: [n] mean raw fit with the market's reference jobs, where the market's version needs it.
  """

  domain: Domain
  side: str
  first: int
  n: int
  latents: Latents
  codes: Mapping[str, np.ndarray]
  blank: Mapping[str, np.ndarray]
  style: Style
  fit: np.ndarray | None = None

  @property
  def leanings(self) -> np.ndarray:
    return self.latents.leanings

  @functools.cached_property
  def evidence(self) -> np.ndarray:
    """[n] mean grade of the projects, centred."""
    return self.latents.grades.mean(1) - GRADE[0]

  @functools.cached_property
  def packed(self) -> dict[str, np.ndarray]:
    """The set attributes as bits, [n, words] uint64, so that intersections are cheap."""
    out = {}
    for name, codes in self.codes.items():
      if codes.ndim == 2 and codes.dtype == bool:
        wide = np.zeros((self.n, -(-codes.shape[1] // 64) * 64), bool)
        wide[:, :codes.shape[1]] = codes
        out[name] = np.packbits(wide, axis=1).view(np.uint64)
    return out


def _context(c: Columns, attribute: str) -> Context:
  return Context(c.domain, c.domain.attribute(c.side, attribute), c.side, c.latents, c.codes,
                 c.style)


class Block(NamedTuple):
  """Entities that are drawn together: n of them from index `first` on, the block of this number."""

  number: int
  first: int
  n: int


def draw_columns(domain: Domain, side: str, seed: int, block: Block, style: Style,
                 missing: float) -> Columns:
  """Draws a block of one side; every attribute from a stream of its own.

  Args:
    domain, side: whose.
    seed: of all streams.
    block: which entities.
    style: how texts are told.
    missing: share of candidates' optional attributes that are blank.
  """
  latents = draw_latents(streams.rng(seed, f'{side}/latents', block.number), domain, side, block.n)
  columns = Columns(domain, side, block.first, block.n, latents, {}, {}, style)
  for name, source in getattr(domain, side).items():
    rng = streams.rng(seed, f'{side}/{name}', block.number)
    columns.codes[name] = source.draw(rng, _context(columns, name))
  if side == 'candidate':
    for name in domain.optional:
      rng = streams.rng(seed, f'blank/{name}', block.number)
      columns.blank[name] = rng.random(block.n) < missing
  return columns


def entities(domain: Domain, columns: Columns) -> tuple[Entity, ...]:
  """The records of columns; a blank attribute is absent."""
  attributes = {}
  for name, source in getattr(domain, columns.side).items():
    values = source.values(columns.codes[name], _context(columns, name))
    if name in columns.blank:
      values = [None if b else v for v, b in zip(values, columns.blank[name].tolist())]
    attributes[name] = values
  # In the schema's order, whatever the order in which the sources draw.
  ordered = [(a.name, attributes[a.name]) for a in domain.schema.attributes(columns.side)]
  names, rows = [n for n, _ in ordered], zip(*(v for _, v in ordered))
  prefix = domain.prefixes[columns.side == 'job']
  return tuple(Entity(f'{prefix}{columns.first + i + 1:04d}', dict(zip(names, row)))
               for i, row in enumerate(rows))


def margin(field: AlignedField, u: Columns, row: np.ndarray, j: Columns,
           job: np.ndarray) -> np.ndarray:
  """How far the candidate of each pair is above (or below) the job on one aligned field.

  The sign agrees with the schema's verdict: met where not negative. In the field's unit for
  numbers, in levels for ordinals, share covered - 1 for sets, and 0 or -1 where a field is only met
  or not.

  Args:
    field: an aligned field with a verdict.
    u, row: candidates and the rows of the pairs.
    j, job: jobs and their indices; row and job broadcast.
  """
  needed = j.codes[field.job]
  match field.comparator:
    case AtLeast() | OrdinalAtLeast():
      return u.codes[field.candidate[0]][row] - needed[job]
    case SetCoverage():
      both = u.packed[field.candidate[0]][row] & j.packed[field.job][job]
      return np.bitwise_count(both).sum(-1) / np.maximum(needed.sum(1), 1)[job] - 1
    case Contains():
      return u.codes[field.candidate[0]][row, needed[job]] - 1.0
    case AnyMemberOf():
      met = [_allowed(field, name, u, j)[job, u.codes[name][row]] for name in field.candidate]
      return np.logical_or.reduce(met) - 1.0
    case Same(anything):
      values = u.domain.attribute('candidate', field.candidate[0]).values
      free = values.index(anything)
      a, b = u.codes[field.candidate[0]][row], needed[job]
      return ((a == b) | (a == free) | (b == free)) - 1.0
  raise ValueError(f'field {field.name}: the simulator knows no margin for {field.comparator}')


def _allowed(field: AlignedField, name: str, u: Columns, j: Columns) -> np.ndarray:
  """[jobs, values of the candidate's attribute] bool: which of them the job's set holds."""
  theirs = j.domain.attribute('job', field.job).values
  values = u.domain.attribute('candidate', name).values
  out = np.zeros((j.n, len(values)), bool)
  for k, value in enumerate(values):
    if value in theirs:
      out[:, k] = j.codes[field.job][:, theirs.index(value)]
  return out
