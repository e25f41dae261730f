"""Writing about a pair: the decoder goes on where it read the pair, with adapters of its own.

What scored a pair also writes about it: its states are read once, under the adapters of the expert
who scores, and never again. Only tokens that are written have the writer's adapters, so that no
score can change. A reason begins with a learned vector for each perspective, as an expert's
judgement does with a readout; what the scores say is added to every token behind it. Its logits are
those of the decoder's own embeddings, behind a linear map. The end of a text is a token of its own,
behind the words of the vocabulary.
"""

from typing import Any

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.experts import MOST, linear_scores
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.list_attention import States
from jobrec_jax.models.list_masks import ListMask, PairMask
from jobrec_jax.models.lora import TARGETS, Adapters, LoraConfig

PyTree = Any
SCALE = 4.0  # of logits, whose hyperbolic tangent moves a start


def writer_lora(rank: int) -> LoraConfig:
  """The writer's adapters: of every projection, for writing asks for more than reading."""
  return LoraConfig(rank=rank, alpha=2.0 * rank, dropout=0.0, targets=TARGETS)


@struct.dataclass
class PairStates:
  """Pairs as they were read: J items of each of B lists.

  Attributes:
    prefix: states [P, layers, B, K, S, H] of the candidates; P passes, one for each expert where
      these have adapters of their own, else one.
    sides: states [P, layers, B, J, K, L, H] of the jobs and the alignments.
    prefix_mask, sides_mask: [B, S] and [B, J, L] bool, False at padding.
    starts: [B, J] int32, the position of what is written next.
    scores: [B, J, E] fp32, what the experts say of the pairs, read in the same pass.
  """

  prefix: States
  sides: States
  prefix_mask: jax.Array
  sides_mask: jax.Array
  starts: jax.Array
  scores: jax.Array

  def of(self, expert: int | jax.Array) -> 'PairStates':
    """One expert's pass, without the axis of passes."""
    at = expert if self.prefix.k.shape[0] > 1 else 0
    prefix, sides = (jax.tree.map(lambda x: x[at], s) for s in (self.prefix, self.sides))
    return self.replace(prefix=prefix, sides=sides)


@struct.dataclass
class Start:
  """What texts of pairs begin with.

  Attributes:
    first: [B, J, E, D] fp32, the vector before the first token.
    scored: [B, J, E, D] fp32, what of it the scores say, which is added to every token: whether a
      text speaks for a job or against it is then asked of no token far behind.
  """

  first: jax.Array
  scored: jax.Array

  def of(self, expert: int | jax.Array) -> 'Start':
    """One expert's, without the axis of experts."""
    return jax.tree.map(lambda x: x[:, :, expert], self)


class Writer(nn.Module):
  """The writer's own parameters: adapters, a start for each perspective, the linear map, the end.

  A start is a learned vector that the experts' scores move, and the numbers of the pair where it
  has any: what a linear model of margins and words knows is in no state of a token.

  Attributes:
    config: of the decoder that it goes on with, with `lora`, the writer's own.
    experts: E.
    numbers: N of a pair, 0 for none.
  """

  config: DecoderConfig
  experts: int
  numbers: int = 0

  def setup(self):
    c = self.config
    normal, nothing = nn.initializers.normal(c.width ** -0.5), nn.initializers.zeros_init()
    self.lora = Adapters(c.lora, c.projection_sizes, c.layers)
    self.begin = self.param('begin', normal, (self.experts, c.width), jnp.float32)
    self.told = self.param('told', nothing, (self.experts, 2 * self.experts, c.width), jnp.float32)
    self.end = self.param('end', normal, (c.width,), jnp.float32)
    self.out = self.param('out', lambda key, shape: jnp.eye(*shape), (c.width, c.width))
    if self.numbers:
      shape = self.experts, self.numbers, c.width
      self.given = self.param('given', nothing, shape, jnp.float32)

  def __call__(self, hidden: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
    """The adapters, what [..., D] states are compared with embeddings as, fp32; and the end's."""
    return self.lora(), hidden.astype(jnp.float32) @ self.out, self.end

  def adapters(self) -> PyTree:
    return self.lora()

  def start(self, model: JobRec, params: PyTree, scores: jax.Array,
            numbers: jax.Array | None) -> Start:
    """What texts begin with.

    Args:
      model, params: the experts.
      scores: [B, J, E], their scores.
      numbers: [B, J, N] of the pairs; None for none.
    """
    joint = jnp.zeros_like(scores)
    if model.config.matched:
      joint = linear_scores(numbers, params['number_scale'],
                            jnp.zeros_like(params['number_weights']), params['match'])
    said = jnp.tanh(jnp.concatenate([scores, joint], axis=-1) / SCALE)
    scored = jnp.einsum('bjs,esd->bjed', said, self.told)
    first = self.begin + scored
    if self.numbers:
      x = jnp.clip(numbers * params['number_scale'], -MOST, MOST)
      first += jnp.einsum('bjn,end->bjed', x, self.given)
    return Start(first, scored)


def read_pairs(model: JobRec, params: PyTree, lists: PyTree) -> PairStates:
  """Reads lists of jobs for a candidate, and scores them in the same pass.

  Args:
    model, params: the experts.
    lists: blocks 'candidate' [B, Lc], 'job' [B, J, Lj] and 'alignment' [B, J, La]; and 'numbers'
      where pairs have some.
  """
  blocks = (lists[name] for name in ('candidate', 'job', 'alignment'))
  return model.apply({'params': params}, *blocks, lists.get('numbers'), method=_read_pairs)


def _read_pairs(m: JobRec, candidate: jax.Array, job: jax.Array, alignment: jax.Array,
                numbers: jax.Array | None) -> PairStates:
  text, readouts = m._text_and_readouts(alignment)
  mask = jnp.concatenate([job, text], axis=-1) != PAD
  read = _read_exactly if m.config.attention == 'exact' else _read_factored
  passes = [read(m, candidate, job, text, readouts[:, :, of], adapters)
            for of, adapters in m._passes()]
  prefix, sides, hidden = zip(*passes)
  stacked = (jax.tree.map(lambda *x: jnp.stack(x), *of) for of in (prefix, sides))
  scores = m._judge(jnp.concatenate(hidden, axis=2).astype(jnp.float32), numbers, True).scores
  if m.config.attention == 'exact':
    starts = (candidate != PAD).sum(-1)[:, None] + mask.sum(-1)
  else:
    starts = m.config.pair_start + (text != PAD).sum(-1)
  return PairStates(*stacked, candidate != PAD, mask, starts.astype(jnp.int32), scores)


def _read_exactly(m: JobRec, candidate: jax.Array, job: jax.Array, text: jax.Array,
                  readouts: jax.Array,
                  adapters: PyTree | None) -> tuple[States, States, jax.Array]:
  """States of prefixes and of items, and the readouts' [B, J, E, D], as `JobRec` reads them."""
  J, read, S = job.shape[1], readouts.shape[2], candidate.shape[1]
  items, seen = m._items(jnp.concatenate([job, text], axis=-1), readouts)
  x = jnp.concatenate([m._embed(candidate), items.reshape(len(items), -1, items.shape[-1])], axis=1)
  hidden, states = m.decoder._encode(x, ListMask(candidate != PAD, (seen,), read), adapters)
  parts = [jnp.split(s, [S], axis=3) for s in (states.k, states.v)]
  own = States(*(_by_item(x, J)[..., :-read, :] for _, x in parts))
  return States(*(p for p, _ in parts)), own, hidden[:, S:].reshape(items.shape)[:, :, -read:]


def _read_factored(m: JobRec, candidate: jax.Array, job: jax.Array, text: jax.Array,
                   readouts: jax.Array,
                   adapters: PyTree | None) -> tuple[States, States, jax.Array]:
  (B, J, L), read = job.shape, readouts.shape[2]
  prefix = m.decoder.encode_blocks(m._embed(candidate), candidate != PAD, 0, adapters)
  flat = job.reshape(B * J, L)
  sides = m.decoder.encode_blocks(m._embed(flat), flat != PAD, m.config.job_start, adapters)
  sides = jax.tree.map(lambda x: x.reshape(x.shape[0], B, J, *x.shape[2:]), sides)
  items, seen = m._items(text, readouts)
  mask = PairMask(candidate != PAD, job != PAD, seen, m.config.pair_start, read)
  hidden, own = _go_on(m.decoder, items, mask, prefix, sides, adapters)
  own = jax.tree.map(lambda x: x[..., :-read, :], own)
  sides = jax.tree.map(lambda *x: jnp.concatenate(x, axis=4), sides, own)
  return prefix, sides, hidden[:, :, -read:]


def read_on(config: DecoderConfig, decoder: PyTree, x: jax.Array, valid: jax.Array,
            pairs: PairStates, adapters: PyTree) -> tuple[jax.Array, States]:
  """Reads more tokens behind pairs that were read.

  Args:
    config, decoder: of the decoder, with the writer's `lora`, and its parameters.
    x: [B, J, T, D] embeddings, which see each other causally.
    valid: [B, J, T] bool, False at padding.
    pairs: of one pass; see `PairStates.of`.
    adapters: the writer's.

  Returns:
    [B, J, T, D] normed hidden states, and the tokens' states [layers, B, J, K, T, H].
  """
  mask = PairMask(pairs.prefix_mask, pairs.sides_mask, valid, 0, starts=pairs.starts)
  return Decoder(config).apply({'params': decoder}, x, mask, pairs.prefix, pairs.sides, adapters,
                               method=_go_on)


def _go_on(decoder: Decoder, x: jax.Array, mask: PairMask, prefix: States, sides: States,
           adapters: PyTree | None) -> tuple[jax.Array, States]:
  B, J, T, D = x.shape
  hidden, states = decoder._encode(x.reshape(B, J * T, D), mask, adapters, (prefix, sides))
  return hidden.reshape(B, J, T, D), jax.tree.map(lambda s: _by_item(s, J), states)


def _by_item(x: jax.Array, J: int) -> jax.Array:
  """[layers, B, K, J*T, H] to [layers, B, J, K, T, H]."""
  return jnp.moveaxis(x.reshape(*x.shape[:3], J, x.shape[3] // J, x.shape[4]), 3, 2)


def embed(model: JobRec, params: PyTree, tokens: jax.Array) -> jax.Array:
  """[...] int32, `PAD` at padding, to [..., D]."""
  return model.apply({'params': params}, tokens, method=lambda m, x: m._embed(x))


def told(model: JobRec, params: PyTree, start: Start, tokens: jax.Array) -> jax.Array:
  """Tokens of texts as they are read, with what the scores say added to each.

  Args:
    model, params: the experts.
    start: of one expert.
    tokens: [B, J, T] int32, `PAD` at padding.

  Returns:
    [B, J, T, D] of the compute dtype.
  """
  read = embed(model, params, tokens)
  return read + start.scored[:, :, None].astype(read.dtype)


def output_rows(model: JobRec, params: PyTree, end: jax.Array, tokens: jax.Array) -> jax.Array:
  """The rows of some tokens with which states are compared.

  Args:
    model, params: the experts.
    end: [D], the row of the end of a text.
    tokens: [...] int32, words or the end.

  Returns:
    [..., D] fp32.
  """
  words = words_of(model)
  at = jnp.clip(tokens, 0, words - 1)
  if model.config.decoder.tie_embeddings:
    rows = jnp.take(params['decoder']['embedding'], at, axis=0)
  else:
    rows = jnp.moveaxis(jnp.take(params['decoder']['lm_head'], at, axis=1), 0, -1)
  return jnp.where((tokens == words)[..., None], end, rows.astype(jnp.float32))


def output_table(model: JobRec, params: PyTree, end: jax.Array) -> jax.Array:
  """[V + 1, D] fp32: the rows of all words, the end's behind them."""
  return jnp.concatenate([word_table(model, params), end[None]])


def word_table(model: JobRec, params: PyTree) -> jax.Array:
  """[V, D] fp32: the rows of all words, which are frozen."""
  decoder = params['decoder']
  table = decoder['embedding'] if model.config.decoder.tie_embeddings else decoder['lm_head'].T
  return table[:words_of(model)].astype(jnp.float32)


def words_of(model: JobRec) -> int:
  """V, the vocabulary without phrases of its own, which are read and never written."""
  return model.config.words or model.config.decoder.vocab_size
