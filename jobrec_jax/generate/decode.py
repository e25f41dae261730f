"""Decoding under automata: one compiled loop for many rows, with no word of the host's in between.

  p(token | text) = softmax over allowed tokens of (logit / temperature)

A text is the greedy one, a drawn one, or the best that a beam search meets: of all texts of a row
that go on or have ended it keeps in each turn the `beams` with the greatest

  sum of log p(token | text) / tokens^length_penalty

and ends where no text that goes on can pass the best that has ended.

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
    log_likelihood: [B, J] fp32, the sum over the choices among allowed tokens.
    turns: [] int32, how often the decoder was asked.
  """

  tokens: jax.Array
  whole: jax.Array
  log_likelihood: jax.Array
  turns: jax.Array


class _State(NamedTuple):
  """What the loop carries: N texts, `beams` of each of the J items of B lists, side by side.

  Attributes:
    turn: [] int32.
    at: [N] int32, each text's state of its row's automaton.
    hidden: [N, D], of the last token read.
    sides: states [layers, B, N/B, K, L + turns*W, H], of the pairs and of what was written.
    seen: [B, N/B, L + turns*W] bool, which of these count.
    place: [B, N/B] int32, position of the next token.
    tokens: [N, turns*W] int32.
    done: [N] bool.
    said: [N] fp32 log-likelihood.
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
           jump: int | None = None, beams: int = 1, length_penalty: float = 0.0) -> Texts:
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
    beams: texts of a pair that are kept side by side; 1 for none but the greedy or drawn one. What
      the jobs of a list share, the candidate's states, is not copied for them.
    length_penalty: the power of a text's length that divides its log-likelihood; 0 compares
      likelihoods, and 1 means over tokens.

  Raises:
    ValueError: a temperature and no key, or the other way round, or it is negative; fewer than one
      beam, or several with a temperature; a length penalty that is negative, or without beams.
  """
  if temperature < 0 or (temperature > 0) != (key is not None):
    raise ValueError('temperature must be 0 without a key of the draws, and above 0 with one, got '
                     f'{temperature} and {"no key" if key is None else "a key"}')
  if beams < 1 or (beams > 1 and temperature > 0):
    raise ValueError('beams must be at least 1, and 1 with a temperature, got '
                     f'{beams} and temperature {temperature}')
  if length_penalty < 0 or (length_penalty > 0 and beams == 1):
    raise ValueError('length_penalty must be at least 0, and 0 without beams, got '
                     f'{length_penalty} and {beams} beams')
  jump = JUMPS.get(platform(), _JUMP) if jump is None else jump
  automata = None if tables is None else (tables.row, tables.token, tables.next, tables.left)
  how = _How(0 if tables is None else tables.most, most, 1 if tables is None else jump,
             float(temperature), beams, float(length_penalty))
  return _decode((writing.model, writing.config), writing.params, writing.writer, pairs, start,
                 automata, how, key)


class _How(NamedTuple):
  """What a program of decoding is compiled for: edges of a state at most, and `decode`'s own."""

  width: int
  most: int
  jump: int
  temperature: float
  beams: int
  length_penalty: float


@functools.partial(jax.jit, static_argnums=(0, 6))
def _decode(static: tuple[JobRec, DecoderConfig], params: PyTree, writer: PyTree,
            pairs: PairStates, start: Start, automata: tuple | None, how: _How,
            key: jax.Array | None) -> Texts:
  model, config = static
  w = Writing(model, config, params, writer)
  if how.beams > 1:
    pairs, start = _side_by_side(pairs, start, how.beams)
  B, J, D = start.first.shape
  N, most, jump = B * J, how.most, how.jump
  adapters = w.module.apply({'params': writer}, method='adapters')
  L = pairs.sides_mask.shape[2]
  room = 1 + most * jump
  behind = [(0, 0)] * 4 + [(0, room), (0, 0)]
  sides = jax.tree.map(lambda x: jnp.pad(x.astype(config.dtype), behind), pairs.sides)
  said = jnp.where(jnp.arange(N) % how.beams == 0, 0.0, -jnp.inf)  # of equal texts one counts
  begin = _State(jnp.int32(0), jnp.zeros(N, jnp.int32), jnp.zeros((N, D), config.dtype),
                 sides, jnp.pad(pairs.sides_mask, ((0, 0), (0, 0), (0, room))), pairs.starts,
                 jnp.full((N, most * jump), PAD, jnp.int32), jnp.zeros(N, bool), said)

  def read(s: _State, x: jax.Array, valid: jax.Array, at: jax.Array) -> _State:
    """Reads x [B, J, T, D] and keeps its states behind all others."""
    seen = pairs.replace(sides=s.sides, sides_mask=s.seen, starts=s.place)
    hidden, own = read_on(config, params['decoder'], x, valid, seen, adapters)
    sides = jax.tree.map(
        lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), at, 4),
        s.sides, own)
    count = valid.sum(-1)
    last = jnp.maximum(count - 1, 0)[..., None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=2).reshape(N, D)
    return s._replace(
        hidden=jnp.where(count.reshape(-1, 1) > 0, hidden, s.hidden), sides=sides,
        seen=jax.lax.dynamic_update_slice_in_dim(s.seen, valid, at, 2), place=s.place + count)

  def turn(s: _State) -> _State:
    compared = w.module.apply({'params': writer}, s.hidden)[1]
    if automata is None:
      options = _all_words(w, compared, s.at)
    else:
      options = _allowed(w, compared, s.at, most - 1 - s.turn, automata, how)
    if how.beams > 1:
      s, whose, pick = _best(s, options.logits, how)
      options = jax.tree.map(lambda x: x[whose], options)
    else:
      draw = None if key is None else jax.random.fold_in(key, s.turn)
      pick, said = _pick(options.logits, how.temperature, draw)
      s = s._replace(said=s.said + jnp.where(s.done, 0, said))
    tokens, at = (jnp.take_along_axis(x, pick[:, None], axis=1)[:, 0] for x in options[1:])
    tokens, at = _followed(tokens, at, automata, how)
    ends = (tokens == w.end).any(-1)
    tokens = jnp.where((tokens == w.end) | s.done[:, None], PAD, tokens)
    out = jax.lax.dynamic_update_slice_in_dim(s.tokens, tokens, s.turn * jump, 1)
    x = told(model, params, start, tokens.reshape(B, J, jump))
    s = read(s, x, (tokens != PAD).reshape(B, J, jump), L + 1 + s.turn * jump)
    return s._replace(turn=s.turn + 1, at=at, tokens=out, done=s.done | ends)

  begin = read(begin, start.first[:, :, None].astype(config.dtype), jnp.ones((B, J, 1), bool), L)
  end = jax.lax.while_loop(lambda s: (s.turn < most) & ~_over(s, how).all(), turn, begin)
  best = _first(end, how)
  tokens, done, said = (x[best].reshape(B, J // how.beams, *x.shape[1:])
                        for x in (end.tokens, end.done, end.said))
  return Texts(tokens, done, said, end.turn)


class _Options(NamedTuple):
  """What may follow N texts: logits, -inf where nothing does; tokens; the states behind them."""

  logits: jax.Array
  tokens: jax.Array
  next: jax.Array


def _allowed(w: Writing, compared: jax.Array, at: jax.Array, turns: jax.Array, automata: tuple,
             how: _How) -> _Options:
  """The edges of the states that texts are at.

  Where no token can come to an end in the `turns` behind this one, all are allowed.
  """
  row, token, follows, left = automata
  lead = jnp.arange(len(at)) // how.beams
  first, count = row[lead, at], row[lead, at + 1] - row[lead, at]
  places = jnp.arange(how.width)
  edges = lead[:, None], jnp.minimum(first[:, None] + places, token.shape[1] - 1)
  tokens, follows = token[edges], follows[edges]
  allowed = places < count[:, None]
  ending = allowed & (left[lead[:, None], follows] <= turns)
  allowed = jnp.where(ending.any(-1, keepdims=True), ending, allowed)
  rows = output_rows(w.model, w.params, w.writer['end'], tokens)
  logits = jnp.where(allowed, jnp.einsum('rd,rad->ra', compared, rows), -jnp.inf)
  return _Options(logits, tokens, follows)


def _all_words(w: Writing, compared: jax.Array, at: jax.Array) -> _Options:
  logits = compared @ output_table(w.model, w.params, w.writer['end']).T
  tokens = jnp.broadcast_to(jnp.arange(logits.shape[1], dtype=jnp.int32), logits.shape)
  return _Options(logits, tokens, jnp.broadcast_to(at[:, None], logits.shape))


def _followed(token: jax.Array, at: jax.Array, automata: tuple | None,
              how: _How) -> tuple[jax.Array, jax.Array]:
  """[N, jump] tokens: one that was chosen and those that have to follow; the state behind them."""
  chosen = [token]
  for _ in range(how.jump - 1):
    row, tokens, follows, _ = automata
    lead = jnp.arange(len(at)) // how.beams
    first, count = row[lead, at], row[lead, at + 1] - row[lead, at]
    forced = (count == 1) & (chosen[-1] != PAD)
    chosen.append(jnp.where(forced, tokens[lead, first], PAD))
    at = jnp.where(forced, follows[lead, first], at)
  return jnp.stack(chosen, axis=1), at


def _pick(logits: jax.Array, temperature: float,
          draw: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  """[N] which of logits [N, A], and its log-likelihood."""
  if draw is None:
    pick = jnp.argmax(logits, axis=-1)
  else:
    logits = logits / temperature
    pick = jax.random.categorical(draw, logits, axis=-1)
  said = jax.nn.log_softmax(logits, axis=-1)
  return pick, jnp.take_along_axis(said, pick[:, None], axis=-1)[:, 0]


def _side_by_side(pairs: PairStates, start: Start, beams: int) -> tuple[PairStates, Start]:
  """Each job of a list as many times; the candidates' states as they are."""
  of_jobs = functools.partial(jnp.repeat, repeats=beams, axis=1)
  sides = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=2), pairs.sides)
  return pairs.replace(sides=sides, sides_mask=of_jobs(pairs.sides_mask),
                       starts=of_jobs(pairs.starts), scores=of_jobs(pairs.scores)
                       ), jax.tree.map(of_jobs, start)


def _length(s: _State) -> jax.Array:
  """[N] tokens of texts, with the end of those that have ended, and the next token of others."""
  return (s.tokens != PAD).sum(-1) + 1


def _best(s: _State, logits: jax.Array, how: _How) -> tuple[_State, jax.Array, jax.Array]:
  """The best continuations of each row's texts.

  Returns:
    the state with the texts that they continue, and their likelihoods; [N] whose they are; [N]
    which of the logits [N, A].
  """
  (N, A), W = logits.shape, how.beams
  said = jnp.where(logits > -jnp.inf, jax.nn.log_softmax(logits, axis=-1), -jnp.inf)
  stay = jnp.where(jnp.arange(A) == 0, 0.0, -jnp.inf)
  said = s.said[:, None] + jnp.where(s.done[:, None], stay, said)
  worth = said / _length(s)[:, None] ** how.length_penalty
  _, kept = jax.lax.top_k(worth.reshape(-1, W * A), W)
  whose = (kept // A + jnp.arange(len(kept))[:, None] * W).reshape(N)
  pick = (kept % A).reshape(N)
  B = len(s.place)
  within = whose.reshape(B, -1) - jnp.arange(B)[:, None] * (N // B)

  def moved(x: jax.Array, axis: int) -> jax.Array:
    return jax.vmap(lambda of, to: jnp.take(of, to, axis=axis), (axis, 0), axis)(x, within)
  return s._replace(
      hidden=s.hidden[whose], sides=jax.tree.map(lambda x: moved(x, 1), s.sides),
      seen=moved(s.seen, 0), place=moved(s.place, 0), tokens=s.tokens[whose], done=s.done[whose],
      said=said[whose, pick]), whose, pick


def _over(s: _State, how: _How) -> jax.Array:
  """[R] bool, whether a row has its text: no other can become as likely by its length."""
  if how.beams == 1:
    return s.done
  worth = s.said / _length(s) ** how.length_penalty
  at_most = s.said / (s.tokens.shape[1] + 1) ** how.length_penalty
  ended, others = (x.reshape(-1, how.beams).max(-1) for x in (
      jnp.where(s.done, worth, -jnp.inf), jnp.where(s.done, -jnp.inf, at_most)))
  return ended >= jnp.maximum(others, jnp.finfo(jnp.float32).min)


def _first(s: _State, how: _How) -> jax.Array:
  """[R] the best text of each row, of those that have ended where one has."""
  worth = (s.said / _length(s) ** how.length_penalty).reshape(-1, how.beams)
  done = (s.done & jnp.isfinite(s.said)).reshape(worth.shape)
  best = jnp.argmax(jnp.where(done.any(-1, keepdims=True) & ~done, -jnp.inf, worth), axis=-1)
  return best + jnp.arange(len(best)) * how.beams


def programs() -> int:
  """How many programs this process has compiled for decoding: a warm one compiles no more."""
  return _decode._cache_size()


def written(texts: Texts) -> list[list[list[int]]]:
  """The tokens of each text, without padding."""
  return [[row[row != PAD].tolist() for row in rows] for rows in np.asarray(texts.tokens)]
