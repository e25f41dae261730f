"""JobRec below the policy: one decoder, and experts who each read a pair for themselves."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import chex
from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.axes import constrain, partitioned
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.experts import ExpertHead, linear_scores
from jobrec_jax.models.list_attention import States
from jobrec_jax.models.list_masks import ListMask, PairMask
from jobrec_jax.models.lora import Adapters

PyTree = Any
# Parameters beside the heads.
PARTS = {'decoder', 'lora', 'readouts', 'verdicts', 'phrases', 'number_weights', 'number_scale',
         'match'}


@dataclasses.dataclass(frozen=True)
class JobRecConfig:
  """A decoder and its experts.

  Attributes:
    decoder: the backbone.
    head_widths: hidden widths of every expert's head.
    head_dropout: dropout rate in the heads.
    readout_dropout: dropout rate on the states that the heads read.
    experts: their names, in the order of the E axis.
    attention: 'exact' or 'factored', see `JobRec`.
    job_start, pair_start: 'factored': positions from which jobs, and what pairs have of their own,
      are read; no candidate (no job) may be longer than what lies before.
    verdicts: 0: alignment blocks are text. Otherwise they are codes below this number, and each
      readout gets learned vectors of a pair's codes, its own, added: no token is spent.
    readout: 'expert_tokens', a readout for each expert; or 'last_token', one that all share.
    words, phrases: token ids from `words` on, of which there are `phrases`, have learned embeddings
      of their own beside the decoder's table.
    numbers: how many every pair has beside its tokens, such as margins; 0: none.
    matched: R, where the last 2 R of them are of the candidate and of the job, and their products
      count as well; 0: none.

  Raises:
    ValueError: a value lies outside its range.
  """

  decoder: DecoderConfig
  head_widths: tuple[int, ...] = (512, 256)
  head_dropout: float = 0.1
  readout_dropout: float = 0.0
  experts: tuple[str, ...] = ('preference', 'qualification')
  attention: str = 'exact'
  job_start: int = 0
  pair_start: int = 0
  verdicts: int = 0
  words: int = 0
  phrases: int = 0
  readout: str = 'expert_tokens'
  numbers: int = 0
  matched: int = 0

  def __post_init__(self):
    if not all(isinstance(w, int) and w > 0 for w in self.head_widths):
      raise ValueError(f'head_widths must be positive integers, got {self.head_widths!r}')
    for name in ('head_dropout', 'readout_dropout'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f'{name} must be at least 0 and below 1, got {getattr(self, name)!r}')
    taken = PARTS & set(self.experts)
    if not self.experts or len(set(self.experts)) < len(self.experts) or taken:
      raise ValueError('experts must be one or more distinct names, none of them '
                       f'{sorted(PARTS)}, got {self.experts!r}')
    for name in ('verdicts', 'words', 'phrases', 'numbers', 'matched'):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 0:
        raise ValueError(f'{name} must be an integer of at least 0, got {value!r}')
    if 2 * self.matched > self.numbers:
      raise ValueError(f'matched must be at most half of numbers = {self.numbers}, got '
                       f'{self.matched}')
    if self.readout not in ('expert_tokens', 'last_token'):
      raise ValueError("readout must be 'expert_tokens' or 'last_token', got "
                       f'{self.readout!r}')
    lora = self.decoder.lora
    if self.readout == 'last_token' and lora is not None and lora.per_expert:
      raise ValueError("readout must be 'expert_tokens' where each expert has adapters and so a "
                       "pass of its own, got 'last_token'")
    if self.attention not in ('exact', 'factored'):
      raise ValueError(f"attention must be 'exact' or 'factored', got {self.attention!r}")
    if self.attention == 'factored' and not 0 < self.job_start < self.pair_start:
      raise ValueError("job_start and pair_start must be 0 < job_start < pair_start with attention "
                       f"'factored', got {self.job_start} and {self.pair_start}")

  @property
  def readouts(self) -> int:
    """How many readout tokens a pair has."""
    return len(self.experts) if self.readout == 'expert_tokens' else 1


@struct.dataclass
class ExpertOutputs:
  """What the experts read and say of every pair.

  Attributes:
    hidden: [B, J, E, D] fp32, the hidden state after the final norm that each expert's head
      reads: its own, or the same for all with the readout 'last_token'.
    scores: [B, J, E] fp32 logits: s_pref and s_qual in the order of `JobRecConfig.experts`.
  """

  hidden: jax.Array
  scores: jax.Array


class JobRec(nn.Module):
  """Scores of every expert for lists of pairs.

  A pair is a candidate block and a job block, an alignment block and one readout token for each
  expert, whose hidden state that expert's head turns into a logit. Attention is `exact`: all of it
  causal, what a list shares read once and first; or `factored`: candidate and job each read alone
  from a fixed position, and only alignment and readouts look at both, so that the states of either
  serve with any partner.

  With the readout 'last_token' one learned token ends every pair, and all heads read its state. The
  published prompt, too, ends with the same words for every pair; the last token of ours would be
  whichever verdict stands there.

  Parameters: `decoder`, `readouts` [E, D], one head under each expert's name, `verdicts` [E, V, D]
  where alignment blocks are V codes, `phrases` [phrases, D] where there are any, and `lora` where
  the decoder's config has adapters (see `lora.Adapters`). One readout for all is [1, D], and its
  vectors of verdicts [1, V, D]. With adapters for each expert, every expert reads the pair in a
  pass of its own, and states are kept for each.

  Where pairs have N numbers, `linear_scores` join the heads' scores; `number_weights` [E, N]
  and `match` [E, R, R] start at zero, `number_scale` [N] is a constant of the data. An amount in
  words is a few tokens without an order.
  """

  config: JobRecConfig

  def setup(self):
    c = self.config.decoder
    self.decoder = Decoder(c)
    init = partitioned(nn.initializers.normal(c.width**-0.5), 'experts', 'embed')
    shape = (self.config.readouts, c.width)
    self.readouts = self.param('readouts', init, shape, jnp.float32)
    if self.config.verdicts:
      nothing = partitioned(nn.initializers.zeros_init(), 'experts', None, 'embed')
      shape = (shape[0], self.config.verdicts, c.width)
      self.verdicts = self.param('verdicts', nothing, shape, jnp.float32)
    if self.config.phrases:
      rows = partitioned(nn.initializers.normal(c.width**-0.5), None, 'embed')
      self.phrases = self.param('phrases', rows, (self.config.phrases, c.width), jnp.float32)
    if c.lora is not None:
      own = len(self.config.experts) if c.lora.per_expert else None
      self.lora = Adapters(c.lora, c.projection_sizes, c.layers, own)
    if self.config.numbers:
      shape = len(self.config.experts), self.config.numbers
      self.number_weights = self.param('number_weights', nn.initializers.zeros_init(), shape,
                                       jnp.float32)
      self.number_scale = self.param('number_scale', nn.initializers.ones_init(),
                                     (self.config.numbers,), jnp.float32)
    if self.config.matched:
      shape = len(self.config.experts), self.config.matched, self.config.matched
      self.match = self.param('match', nn.initializers.zeros_init(), shape, jnp.float32)
    for name in self.config.experts:
      setattr(self, name, ExpertHead(
          self.config.head_widths, self.config.head_dropout, self.config.readout_dropout,
          nn.initializers.zeros_init() if self.config.numbers else nn.linear.default_kernel_init))

  def __call__(
    self,
    candidate: jax.Array,
    job: jax.Array,
    alignment: jax.Array,
    numbers: jax.Array | None = None,
    deterministic: bool = True,
  ) -> ExpertOutputs:
    """Scores lists; a pair's result depends neither on the rest of its list nor on padding.

    What a list shares is read once. Its rank says which side that is, and with exact attention the
    shared side is read first: candidate-first, the serving layout, or job-first.

    Args:
      candidate: [B, Lc] int32 tokens of one candidate for each list, or [B, J, Lc] of one for each
        pair; `PAD` is padding in every block.
      job: [B, J, Lj] int32 of one job for each pair, or [B, Lj] of one for each list. Where neither
        side is shared, pairs are read candidate-first.
      alignment: [B, J, La] int32 tokens, or codes of verdicts.
      numbers: [B, J, N] float32 of every pair, where the config has N of them.
      deterministic: False draws the heads' dropout from the 'dropout' stream; that of adapters is
        drawn wherever this stream is given.

    Returns:
      `ExpertOutputs`. A pair that is all padding has finite outputs without meaning.
    """
    B, J = alignment.shape[:2]
    chex.assert_rank([candidate, job, alignment], [{2, 3}, {2, 3}, 3])
    chex.assert_shape(candidate, (B, None) if candidate.ndim == 2 else (B, J, None))
    chex.assert_shape(job, (B, None) if job.ndim == 2 else (B, J, None))
    if candidate.ndim == job.ndim == 2:
      raise ValueError('candidate or job must be shared by its list, not both, got both of rank 2')
    if candidate.ndim == job.ndim:  # B * J lists of one item.
      candidate = candidate.reshape(B * J, -1)
      job, alignment = (x.reshape(B * J, 1, x.shape[-1]) for x in (job, alignment))
    sides = {'candidate': candidate, 'job': job}
    shared, other = sorted(sides, key=lambda side: sides[side].ndim)
    if self.config.attention == 'exact':
      hidden = self._read(sides[shared], (sides[other],), (alignment,))
    else:
      partners = sides[other]
      states = self.encode(partners.reshape(-1, partners.shape[-1]), other)
      states = jax.tree.map(lambda x: x.reshape(*x.shape[:2], *partners.shape[:2], *x.shape[3:]),
                            states)
      hidden = self._look(self.encode(sides[shared], shared), sides[shared] != PAD, states,
                          partners != PAD, alignment)
    return self._judge(hidden.reshape(B, J, *hidden.shape[2:]), numbers, deterministic)

  def score_groups(
    self,
    shared: jax.Array,
    others: Sequence[jax.Array],
    alignments: Sequence[jax.Array],
    numbers: jax.Array | None = None,
    deterministic: bool = True,
  ) -> ExpertOutputs:
    """As calling it, for lists whose items come in groups that are padded to lengths of their own.

    Padding costs as much as text, and not all items of a list are as long as its longest: see
    `data.tokens.by_length`.

    Args:
      shared: [B, S] int32 tokens of the side that each list shares, candidate or job.
      others: of each group, [B, J, L] int32 of the other side.
      alignments: of each group, [B, J, La] int32 tokens, or codes of verdicts.
      numbers: of all items, group after group; as calling it.
      deterministic: False draws dropout from the 'dropout' stream.

    Returns:
      `ExpertOutputs` of all items, group after group.

    Raises:
      ValueError: attention is factored, or others and alignments are not as many.
    """
    if self.config.attention != 'exact':
      raise ValueError("attention must be 'exact' for score_groups, got "
                       f'{self.config.attention!r}')
    if len(others) != len(alignments):
      raise ValueError('alignments must be as many as the groups of others, got '
                       f'{len(others)} of others and {len(alignments)} of alignments')
    return self._judge(self._read(shared, others, alignments), numbers, deterministic)

  def encode(self, tokens: jax.Array, side: str) -> States:
    """The states of candidates or jobs read alone, for `score_pairs`.

    Args:
      tokens: [U, L] int32.
      side: 'candidate' or 'job'.

    Returns:
      States [P, layers, U, K, L, H].
    """
    start = {'candidate': 0, 'job': self.config.job_start}[side]
    room = self.config.job_start if side == 'candidate' else (
      self.config.pair_start - self.config.job_start)
    if tokens.shape[1] > room:
      raise ValueError(f'{side} blocks must be at most {room} tokens, which is where the next '
                       f'block starts, got {tokens.shape[1]}')
    x = self._embed(tokens)
    states = [self.decoder.encode_blocks(x, tokens != PAD, start, adapters)
              for _, adapters in self._passes()]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *states)

  def score_pairs(
    self,
    shared: States,
    shared_mask: jax.Array,
    others: States,
    index: jax.Array,
    other_mask: jax.Array,
    alignment: jax.Array,
    numbers: jax.Array | None = None,
  ) -> ExpertOutputs:
    """Scores pairs of which both sides were encoded before.

    Args:
      shared: states [P, layers, B, K, L, H] of the side that each list shares, candidate or job.
      shared_mask: [B, L] bool, False at padding.
      others: states [P, layers, U, K, L', H] of entities of the other side.
      index: [B, J] int32, which of these U each pair has.
      other_mask: [B, J, L'] bool.
      alignment: [B, J, La] int32 tokens, or codes of verdicts.
      numbers: [B, J, N], as calling it.
    """
    hidden = self._look(shared, shared_mask, others, other_mask, alignment, index)
    return self._judge(hidden, numbers, True)

  def _judge(self, hidden: jax.Array, numbers: jax.Array | None,
             deterministic: bool) -> ExpertOutputs:
    """Args: hidden [B, J, E, D] of the readouts, or [B, J, 1, D] of the one that all share."""
    expected = (*hidden.shape[:2], self.config.numbers) if self.config.numbers else None
    if (None if numbers is None else numbers.shape) != expected:
      raise ValueError(f'numbers must be [B, J, {self.config.numbers}] of the pairs, got '
                       f'{None if numbers is None else numbers.shape}')
    if self.config.readout == 'last_token':
      shape = *hidden.shape[:2], len(self.config.experts), hidden.shape[3]
      hidden = jnp.broadcast_to(hidden, shape)
    hidden = constrain(hidden, 'batch', 'items', 'experts', 'embed')
    scores = jnp.stack([getattr(self, name)(hidden[:, :, e], deterministic)
                        for e, name in enumerate(self.config.experts)], axis=-1)
    if self.config.numbers:
      scores = scores + linear_scores(numbers, self.number_scale, self.number_weights,
                                      self.match if self.config.matched else None)
    return ExpertOutputs(hidden, scores)

  def _embed(self, tokens: jax.Array) -> jax.Array:
    tokens = jnp.where(tokens == PAD, 0, tokens)
    if not self.config.phrases:
      return self.decoder.embed(tokens)
    phrase = tokens >= self.config.words
    words = self.decoder.embed(jnp.where(phrase, 0, tokens))
    rows = jnp.take(self.phrases, jnp.where(phrase, tokens - self.config.words, 0), axis=0,
                    mode='fill')
    return jnp.where(phrase[..., None], self.decoder.enter(rows), words)

  def _passes(self) -> list[tuple[slice, PyTree | None]]:
    """The readouts that each pass over the text reads for, and its adapters."""
    c = self.config.decoder
    if c.lora is None:
      return [(slice(None), None)]
    adapters = self.lora()
    if not c.lora.per_expert:
      return [(slice(None), adapters)]
    return [(slice(e, e + 1), jax.tree.map(lambda x, e=e: x[e], adapters))
            for e in range(len(self.config.experts))]

  def _text_and_readouts(self, alignment: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What pairs have of their own: tokens [B, J, L], and readouts [B, J, E, D]."""
    if not self.config.verdicts:
      rows = self.readouts
      return alignment, jnp.broadcast_to(rows, (*alignment.shape[:2], *rows.shape))
    found = jax.nn.one_hot(alignment, self.config.verdicts).sum(axis=2)  # padding has no code
    return alignment[..., :0], self.readouts + jnp.einsum('bjv,evd->bjed', found, self.verdicts)

  def _items(self, tokens: jax.Array, readouts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, J, L] tokens with readouts behind them: embeddings [B, J, T, D], mask [B, J, T]."""
    readouts = self.decoder.enter(readouts)
    return (jnp.concatenate([self._embed(tokens), readouts], axis=2),
            jnp.concatenate([tokens != PAD, jnp.ones(readouts.shape[:3], bool)], axis=2))

  def _read(self, prefix: jax.Array, others: Sequence[jax.Array],
            alignments: Sequence[jax.Array]) -> jax.Array:
    """Args: prefix [B, S], of each group others [B, J, L] tokens. Returns readouts [B, J, E, D]."""
    texts, readouts = zip(*map(self._text_and_readouts, alignments))
    contents = [jnp.concatenate(of, axis=-1) for of in zip(others, texts)]
    embedded, hidden = self._embed(prefix), []
    for of, adapters in self._passes():
      items, masks = zip(*(self._items(x, r[:, :, of]) for x, r in zip(contents, readouts)))
      read = readouts[0][:, :, of].shape[2]
      mask = ListMask(prefix != PAD, masks, blind=read, read=read)
      out = self.decoder.encode_lists(embedded, items, mask, adapters)
      hidden.append(jnp.concatenate(out, axis=1).astype(jnp.float32))
    return jnp.concatenate(hidden, axis=2)

  def _look(
    self,
    shared: States,
    shared_mask: jax.Array,
    others: States,
    other_mask: jax.Array,
    alignment: jax.Array,
    index: jax.Array | None = None,
  ) -> jax.Array:
    """As `score_pairs`, or without an index over others [P, layers, B, J, K, L', H], by pair.

    Returns:
      [B, J, E, D] fp32 of the readouts.
    """
    text, readouts = self._text_and_readouts(alignment)
    L, hidden = text.shape[2], []
    for p, (of, adapters) in enumerate(self._passes()):
      items, item_mask = self._items(text, readouts[:, :, of])
      read = items.shape[2] - L
      mask = PairMask(shared_mask, other_mask, item_mask, self.config.pair_start, read, index, read)
      left, right = (jax.tree.map(lambda x, p=p: x[p], s) for s in (shared, others))
      out = self.decoder.encode_pairs(items, mask, left, right, adapters)
      hidden.append(out.astype(jnp.float32))
    return jnp.concatenate(hidden, axis=2)
