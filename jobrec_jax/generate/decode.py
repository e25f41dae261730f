"""Decoding under automata: one compiled loop for many rows, with no word of the host's in between.

  p(token | text) = softmax over allowed tokens of (logit / temperature)

Every turn reads what was chosen in the last one, and what had to follow it: a state with one edge
leaves no choice, so that several tokens may go through the decoder side by side. Logits are those
of allowed tokens alone, whose embeddings are gathered. Nothing of a model's own settings for
generating is used.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.tokens import PAD
from jobrec_jax.generate.automaton import Tables
from jobrec_jax.models.axes import platform
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.list_attention import States
from jobrec_jax.models.writer import (
  PairStates,
  Start,
  Writer,
  output_rows,
  output_table,
  read_on,
  told,
  words_of,
)

PyTree = Any
# Tokens of a turn: the one chosen, and those that had to follow. On CPUs a token more costs what a
# turn does; where reading the weights takes the time, it costs next to nothing.
JUMPS = {'cpu': 1}
_JUMP = 4


class Writing(NamedTuple):
  """The models and parameters of writing; static parts first.

  Attributes:
    model: the experts.
    config: of their decoder, with the writer's `lora`.
    params, writer: parameters of the experts and of the writer.
  """

  model: JobRec
  config: DecoderConfig
  params: PyTree
  writer: PyTree

  @property
  def module(self) -> Writer:
    return Writer(self.config, len(self.model.config.experts), self.model.config.numbers)

  @property
  def end(self) -> int:
    """The id of the end of a text."""
    return words_of(self.model)


class Texts(NamedTuple):
  """What was written.

  Attributes:
    tokens: [B, J, T] int32, without the end; `PAD` wherever a turn had nothing more to say.
    whole: [B, J] bool, whether the text came to its end.
    log_likelihood: [B, J] fp32, of the choices among allowed tokens.
    turns: [] int32, how often the decoder was asked.
  """

  tokens: jax.Array
  whole: jax.Array
  log_likelihood: jax.Array
  turns: jax.Array


class _State(NamedTuple):
  """What the loop carries.

  Attributes:
    turn: [] int32.
    at: [R] int32, each row's state of its automaton.
    hidden: [R, D], of the last token read.
    sides: states [layers, B, J, K, L + turns*W, H], of the pairs and of what was written.
    seen: [B, J, L + turns*W] bool, which of these count.
    place: [B, J] int32, position of the next token.
    tokens: [R, turns*W] int32.
    done: [R] bool.
    said: [R] fp32 log-likelihood.
  """

  turn: jax.Array
  at: jax.Array
  hidden: jax.Array
  sides: States
  seen: jax.Array
  place: jax.Array
  tokens: jax.Array
  done: jax.Array
  said: jax.Array


def decode(writing: Writing, pairs: PairStates, start: Start, tables: Tables | None,
           most: int, temperature: float = 0.0, key: jax.Array | None = None,
           jump: int | None = None) -> Texts:
  """Writes a text for each pair.

  Args:
    writing: who writes.
    pairs: of one pass.
    start: what texts begin with, of one expert.
    tables: of the R = B*J automata; None for free decoding, where anything may follow.
    most: turns, at most.
    temperature: 0 takes the likeliest token; else tokens are drawn.
    key: of the draws, with a temperature.
    jump: tokens of a turn, at most, None for what suits the device; free decoding has nothing to
      jump over.

  Raises:
    ValueError: a temperature and no key, or the other way round, or it is negative.
  """
  if temperature < 0 or (temperature > 0) != (key is not None):
    raise ValueError('temperature must be 0 without a key of the draws, and above 0 with one, got '
                     f'{temperature} and {"no key" if key is None else "a key"}')
  jump = JUMPS.get(platform(), _JUMP) if jump is None else jump
  automata = None if tables is None else (tables.row, tables.token, tables.next, tables.left)
  return _decode((writing.model, writing.config), writing.params, writing.writer, pairs, start,
                 automata, 0 if tables is None else tables.most, most, temperature, key,
                 1 if tables is None else jump)


@functools.partial(jax.jit, static_argnums=(0, 6, 7, 8, 10))
def _decode(static: tuple[JobRec, DecoderConfig], params: PyTree, writer: PyTree,
            pairs: PairStates, start: Start, automata: tuple | None, width: int, most: int,
            temperature: float, key: jax.Array | None, jump: int) -> Texts:
  model, config = static
  w = Writing(model, config, params, writer)
  B, J, D = start.first.shape
  adapters = w.module.apply({'params': writer}, method='adapters')
  L = pairs.sides_mask.shape[2]
  room = 1 + most * jump
  behind = [(0, 0)] * 4 + [(0, room), (0, 0)]
  sides = jax.tree.map(lambda x: jnp.pad(x.astype(config.dtype), behind), pairs.sides)
  begin = _State(jnp.int32(0), jnp.zeros(B * J, jnp.int32), jnp.zeros((B * J, D), config.dtype),
                 sides, jnp.pad(pairs.sides_mask, ((0, 0), (0, 0), (0, room))), pairs.starts,
                 jnp.full((B * J, most * jump), PAD, jnp.int32), jnp.zeros(B * J, bool),
                 jnp.zeros(B * J))

  def read(s: _State, x: jax.Array, valid: jax.Array, at: jax.Array) -> _State:
    """Reads x [B, J, T, D] and keeps its states behind all others."""
    seen = pairs.replace(sides=s.sides, sides_mask=s.seen, starts=s.place)
    hidden, own = read_on(config, params['decoder'], x, valid, seen, adapters)
    sides = jax.tree.map(
        lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), at, 4),
        s.sides, own)
    count = valid.sum(-1)
    last = jnp.maximum(count - 1, 0)[..., None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=2).reshape(B * J, D)
    return s._replace(
        hidden=jnp.where(count.reshape(-1, 1) > 0, hidden, s.hidden), sides=sides,
        seen=jax.lax.dynamic_update_slice_in_dim(s.seen, valid, at, 2), place=s.place + count)

  def turn(s: _State) -> _State:
    draw = None if key is None else jax.random.fold_in(key, s.turn)
    compared = w.module.apply({'params': writer}, s.hidden)[1]
    choose = _choose_freely if automata is None else functools.partial(
        _choose, automata=automata, width=width, jump=jump)
    tokens, at, said = choose(w, compared, s.at, most - 1 - s.turn, temperature=temperature,
                              draw=draw)
    ends = (tokens == w.end).any(-1)
    tokens = jnp.where((tokens == w.end) | s.done[:, None], PAD, tokens)
    out = jax.lax.dynamic_update_slice_in_dim(s.tokens, tokens, s.turn * jump, 1)
    x = told(model, params, start, tokens.reshape(B, J, jump))
    s = read(s, x, (tokens != PAD).reshape(B, J, jump), L + 1 + s.turn * jump)
    return s._replace(turn=s.turn + 1, at=at, tokens=out, done=s.done | ends,
                      said=s.said + jnp.where(s.done, 0, said))

  begin = read(begin, start.first[:, :, None].astype(config.dtype), jnp.ones((B, J, 1), bool), L)
  end = jax.lax.while_loop(lambda s: (s.turn < most) & ~s.done.all(), turn, begin)
  return Texts(end.tokens.reshape(B, J, -1), end.done.reshape(B, J), end.said.reshape(B, J),
               end.turn)


def _choose(w: Writing, compared: jax.Array, at: jax.Array, turns: jax.Array, automata: tuple,
            width: int, jump: int, temperature: float, draw: jax.Array | None):
  """[R, jump] tokens, the state behind them, and the log-likelihood of what was chosen.

  Where no token can come to an end in the `turns` behind this one, all are allowed.
  """
  row, token, follows, left = automata
  lead = jnp.arange(len(at))
  first, count = row[lead, at], row[lead, at + 1] - row[lead, at]
  edges = jnp.minimum(first[:, None] + jnp.arange(width), token.shape[1] - 1)
  allowed = jnp.arange(width) < count[:, None]
  ending = allowed & (left[lead[:, None], jnp.take_along_axis(follows, edges, axis=1)] <= turns)
  allowed = jnp.where(ending.any(-1, keepdims=True), ending, allowed)
  tokens = jnp.take_along_axis(token, edges, axis=1)
  rows = output_rows(w.model, w.params, w.writer['end'], tokens)
  logits = jnp.where(allowed, jnp.einsum('rd,rad->ra', compared, rows), -jnp.inf)
  pick, said = _pick(logits, temperature, draw)
  edge = first + pick
  chosen, at = [token[lead, edge]], follows[lead, edge]
  for _ in range(jump - 1):
    first, count = row[lead, at], row[lead, at + 1] - row[lead, at]
    forced = (count == 1) & (chosen[-1] != PAD)
    chosen.append(jnp.where(forced, token[lead, first], PAD))
    at = jnp.where(forced, follows[lead, first], at)
  said = jnp.where(jnp.isfinite(said), said, 0.0)  # rows that are done have no edge left
  return jnp.stack(chosen, axis=1), at, said


def _choose_freely(w: Writing, compared: jax.Array, at: jax.Array, turns: jax.Array,
                   temperature: float, draw: jax.Array | None):
  del turns
  table = output_table(w.model, w.params, w.writer['end'])
  pick, said = _pick(compared @ table.T, temperature, draw)
  return pick[:, None].astype(jnp.int32), at, said


def _pick(logits: jax.Array, temperature: float,
          draw: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  """[R] which of logits [R, A], and its log-likelihood."""
  if draw is None:
    pick = jnp.argmax(logits, axis=-1)
  else:
    logits = logits / temperature
    pick = jax.random.categorical(draw, logits, axis=-1)
  said = jax.nn.log_softmax(logits, axis=-1)
  return pick, jnp.take_along_axis(said, pick[:, None], axis=-1)[:, 0]


def programs() -> int:
  """How many programs this process has compiled for decoding: a warm one compiles no more."""
  return _decode._cache_size()


def written(texts: Texts) -> list[list[list[int]]]:
  """The tokens of each text, without padding."""
  return [[row[row != PAD].tolist() for row in rows] for rows in np.asarray(texts.tokens)]
