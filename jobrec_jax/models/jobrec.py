"""JobRec below the policy: one decoder, and experts who each read a pair for themselves."""

import dataclasses
from typing import Any

import chex
from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp

from jobrec_jax.models.axes import constrain, partitioned
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.experts import ExpertHead, readout_block
from jobrec_jax.models.lora import Adapters

PyTree = Any
PAD = -1  # The token id of padding, wherever it stands in a block; no tokenizer's id.


@dataclasses.dataclass(frozen=True)
class JobRecConfig:
  """A decoder and its experts.

  Attributes:
    decoder: the backbone.
    head_widths: hidden widths of every expert's head.
    head_dropout: dropout rate in the heads.
    experts: their names, in the order of the E axis.

  Raises:
    ValueError: a value out of its range, with key, allowed and got.
  """

  decoder: DecoderConfig
  head_widths: tuple[int, ...] = (512, 256)
  head_dropout: float = 0.1
  experts: tuple[str, ...] = ('preference', 'qualification')

  def __post_init__(self):
    if not all(isinstance(w, int) and w > 0 for w in self.head_widths):
      raise ValueError(f'head_widths: allowed positive integers, got {self.head_widths!r}')
    if not 0 <= self.head_dropout < 1:
      raise ValueError(f'head_dropout: allowed at least 0 and below 1, got {self.head_dropout!r}')
    taken = {'decoder', 'readouts', 'lora'} & set(self.experts)
    if not self.experts or len(set(self.experts)) < len(self.experts) or taken:
      raise ValueError(
        "experts: allowed one or more distinct names, none of them 'decoder', 'lora' or "
        f"'readouts', got {self.experts!r}"
      )


@struct.dataclass
class ExpertOutputs:
  """What the experts read and say of every pair.

  Attributes:
    hidden: [B, J, E, D] fp32, each expert's own hidden state after the final norm.
    scores: [B, J, E] fp32 logits: s_pref and s_qual in the order of `JobRecConfig.experts`.
  """

  hidden: jax.Array
  scores: jax.Array


class JobRec(nn.Module):
  """Scores of every expert for lists of pairs, candidate first.

  A candidate is read once for its list. Each of its items is a job block, an alignment block and
  one readout token for each expert, whose hidden state that expert's head turns into a logit.

  Parameters: `decoder`, `readouts` [E, D], one head under each expert's name, and `lora` where the
  decoder's config has adapters (see `lora.Adapters`). With adapters for each expert, every expert
  reads the pair in a pass of its own.
  """

  config: JobRecConfig

  @nn.compact
  def __call__(
    self,
    candidate: jax.Array,
    job: jax.Array,
    alignment: jax.Array,
    deterministic: bool = True,
  ) -> ExpertOutputs:
    """Scores lists; a pair's result depends neither on the rest of its list nor on padding.

    Args:
      candidate: [B, Lc] int32 tokens of one candidate for each list, or [B, J, Lc] of one for each
        pair (job-centred lists); `PAD` is padding in every block.
      job: [B, J, Lj] int32.
      alignment: [B, J, La] int32.
      deterministic: False draws dropout from the 'dropout' stream.

    Returns:
      `ExpertOutputs`. A pair that is all padding has finite outputs without meaning.
    """
    B, J, E = *job.shape[:2], len(self.config.experts)
    chex.assert_rank([candidate, job, alignment], [{2, 3}, 3, 3])
    chex.assert_shape(alignment, (B, J, None))
    chex.assert_shape(candidate, (B, None) if candidate.ndim == 2 else (B, J, None))
    content = jnp.concatenate([job, alignment], axis=-1)  # [B, J, Lj + La]
    if candidate.ndim == 3:  # B * J lists of one item.
      candidate = candidate.reshape(B * J, candidate.shape[-1])
      content = content.reshape(B * J, 1, content.shape[-1])
    hidden = self._read(candidate, content).reshape(B, J, E, -1)
    hidden = constrain(hidden, 'batch', 'items', 'experts', 'embed')
    heads = [
      ExpertHead(self.config.head_widths, self.config.head_dropout, name=name)
      for name in self.config.experts
    ]
    scores = [head(hidden[:, :, e], deterministic) for e, head in enumerate(heads)]
    return ExpertOutputs(hidden, jnp.stack(scores, axis=-1))

  def _read(self, prefix: jax.Array, content: jax.Array) -> jax.Array:
    """Args: prefix [B, S], content [B, J, L] tokens. Returns [B, J, E, D] fp32 of the readouts."""
    c, E = self.config.decoder, len(self.config.experts)
    init = partitioned(nn.initializers.normal(c.width**-0.5), 'experts', 'embed')
    rows = self.param('readouts', init, (E, c.width), jnp.float32)
    decoder = Decoder(c, name='decoder')
    lead, L = content.shape[:2], content.shape[2]
    embedded = [decoder.embed(jnp.where(x == PAD, 0, x)) for x in (prefix, content)]

    def read(rows: jax.Array, adapters: PyTree | None) -> jax.Array:
      readouts = jnp.broadcast_to(rows.astype(c.dtype), (*lead, *rows.shape))
      items = jnp.concatenate([embedded[1], readouts], axis=2)  # [B, J, T, D]
      item_mask = jnp.concatenate([content != PAD, jnp.ones((*lead, len(rows)), bool)], axis=2)
      hidden = decoder.encode_lists(
        embedded[0], prefix != PAD, items, item_mask, readout_block(L, len(rows)), adapters
      )
      return hidden[:, :, L:].astype(jnp.float32)

    if c.lora is None:
      return read(rows, None)
    adapters = Adapters(
      c.lora, c.projection_sizes, c.layers, E if c.lora.per_expert else None, name='lora'
    )()
    if not c.lora.per_expert:
      return read(rows, adapters)
    passes = [read(rows[e, None], jax.tree.map(lambda x, e=e: x[e], adapters)) for e in range(E)]
    return jnp.concatenate(passes, axis=2)
