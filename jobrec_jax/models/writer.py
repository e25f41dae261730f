"""Writing about a pair: the decoder goes on where it read the pair, with adapters of its own.

What scored a pair also writes about it: its states are read once, under the adapters of the expert
who scores, and never again. Only tokens that are written have the writer's adapters, so that no
score can change. A reason begins with a learned vector for each perspective, as an expert's
judgement does with a readout; its logits are those of the decoder's own embeddings, behind a linear
map. The end of a text is a token of its own, behind the words of the vocabulary.
"""

from typing import Any

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.experts import MOST
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.list_attention import States
from jobrec_jax.models.list_masks import ListMask, PairMask
from jobrec_jax.models.lora import TARGETS, Adapters, LoraConfig

PyTree = Any


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
  """

  prefix: States
  sides: States
  prefix_mask: jax.Array
  sides_mask: jax.Array
  starts: jax.Array

  def of(self, expert: int | jax.Array) -> 'PairStates':
    """One expert's pass, without the axis of passes."""
    at = expert if self.prefix.k.shape[0] > 1 else 0
    prefix, sides = (jax.tree.map(lambda x: x[at], s) for s in (self.prefix, self.sides))
    return self.replace(prefix=prefix, sides=sides)


class Writer(nn.Module):
  """The writer's own parameters: adapters, a start for each perspective, the linear map, the end.

  Where pairs have numbers, these move the start: what a linear model of margins knows of a pair is
  in no state of its tokens.

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
    normal = nn.initializers.normal(c.width ** -0.5)
    self.lora = Adapters(c.lora, c.projection_sizes, c.layers)
    self.begin = self.param('begin', normal, (self.experts, c.width), jnp.float32)
    self.end = self.param('end', normal, (c.width,), jnp.float32)
    self.out = self.param('out', lambda key, shape: jnp.eye(*shape), (c.width, c.width))
    if self.numbers:
      shape = self.experts, self.numbers, c.width
      self.given = self.param('given', nn.initializers.zeros_init(), shape, jnp.float32)

  def __call__(self, hidden: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
    """The adapters, what [..., D] states are compared with embeddings as, fp32; and the end's."""
    return self.lora(), hidden.astype(jnp.float32) @ self.out, self.end

  def adapters(self) -> PyTree:
    return self.lora()

  def start(self, numbers: jax.Array | None, scale: jax.Array | None) -> jax.Array:
    """[B, J, N] numbers and [N], their scale, to [B, J, E, D]; [1, 1, E, D] without numbers."""
    if not self.numbers:
      return self.begin[None, None]
    x = jnp.clip(numbers * scale, -MOST, MOST)
    return self.begin + jnp.einsum('bjn,end->bjed', x, self.given)


def read_pairs(model: JobRec, params: PyTree, lists: PyTree) -> PairStates:
  """Reads lists of jobs for a candidate as the experts do, but for their readouts.

  Args:
    model, params: the experts.
    lists: blocks 'candidate' [B, Lc], 'job' [B, J, Lj] and 'alignment' [B, J, La].
  """
  blocks = (lists[name] for name in ('candidate', 'job', 'alignment'))
  return model.apply({'params': params}, *blocks, method=_read_pairs)


def _read_pairs(m: JobRec, candidate: jax.Array, job: jax.Array,
                alignment: jax.Array) -> PairStates:
  text = alignment[..., :0] if m.config.verdicts else alignment
  mask = jnp.concatenate([job, text], axis=-1) != PAD
  read = _read_exactly if m.config.attention == 'exact' else _read_factored
  passes = [read(m, candidate, job, text, adapters) for _, adapters in m._passes()]
  prefix, sides = (jax.tree.map(lambda *x: jnp.stack(x), *of) for of in zip(*passes))
  if m.config.attention == 'exact':
    starts = (candidate != PAD).sum(-1)[:, None] + mask.sum(-1)
  else:
    starts = m.config.pair_start + (text != PAD).sum(-1)
  return PairStates(prefix, sides, candidate != PAD, mask, starts.astype(jnp.int32))


def _read_exactly(m: JobRec, candidate: jax.Array, job: jax.Array, text: jax.Array,
                  adapters: PyTree | None) -> tuple[States, States]:
  B, J = job.shape[:2]
  items = jnp.concatenate([job, text], axis=-1)
  x = jnp.concatenate([m._embed(candidate), m._embed(items).reshape(B, -1, m.config.decoder.width)],
                      axis=1)
  mask = ListMask(candidate != PAD, (items != PAD,), (_causal(items.shape[2]),))
  states = m.decoder._encode(x, mask, adapters)[1]
  parts = [jnp.split(s, [candidate.shape[1]], axis=3) for s in (states.k, states.v)]
  return States(*(p for p, _ in parts)), States(*(_by_item(x, J) for _, x in parts))


def _read_factored(m: JobRec, candidate: jax.Array, job: jax.Array, text: jax.Array,
                   adapters: PyTree | None) -> tuple[States, States]:
  B, J, L = job.shape
  c, decoder = m.config, m.decoder
  prefix = decoder.encode_blocks(m._embed(candidate), candidate != PAD, 0, adapters)
  flat = job.reshape(B * J, L)
  sides = decoder.encode_blocks(m._embed(flat), flat != PAD, c.job_start, adapters)
  sides = jax.tree.map(lambda x: x.reshape(x.shape[0], B, J, *x.shape[2:]), sides)
  if not text.shape[2]:
    return prefix, sides
  mask = PairMask(candidate != PAD, job != PAD, text != PAD, _causal(text.shape[2]), c.pair_start)
  own = _go_on(decoder, m._embed(text), mask, prefix, sides, adapters)[1]
  return prefix, jax.tree.map(lambda *x: jnp.concatenate(x, axis=4), sides, own)


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
  mask = PairMask(pairs.prefix_mask, pairs.sides_mask, valid, _causal(x.shape[2]), 0,
                  starts=pairs.starts)
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


def _causal(length: int) -> jax.Array:
  return jnp.tril(jnp.ones((length, length), bool))


def embed(model: JobRec, params: PyTree, tokens: jax.Array) -> jax.Array:
  """[...] int32, `PAD` at padding, to [..., D]."""
  return model.apply({'params': params}, tokens, method=lambda m, x: m._embed(x))


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
  decoder = params['decoder']
  table = decoder['embedding'] if model.config.decoder.tie_embeddings else decoder['lm_head'].T
  return jnp.concatenate([table[:words_of(model)].astype(jnp.float32), end[None]])


def words_of(model: JobRec) -> int:
  """V, the vocabulary without phrases of its own, which are read and never written."""
  return model.config.words or model.config.decoder.vocab_size
