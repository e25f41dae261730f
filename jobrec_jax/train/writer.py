"""Stage 1C: the writer learns reasons on what frozen experts read; no score can change."""

from typing import Any

import jax
import jax.numpy as jnp

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.writer import (
  Writer,
  output_rows,
  read_on,
  read_pairs,
  told,
  word_table,
  words_of,
)
from jobrec_jax.train.state import LossFn

PyTree = Any


def writer_loss(model: JobRec, config: DecoderConfig) -> LossFn:
  """L = mean over tokens of -log p(token | pair, perspective, tokens before it).

  Args:
    model: the experts, frozen.
    config: of their decoder, with the writer's `lora`.

  Returns:
    (writer, experts' parameters, batch, key) -> (loss, metrics); a batch is blocks of lists of
    jobs, and 'texts', of each expert's perspective [B, J, T] int32, the end behind each and then
    `PAD`; an empty text teaches nothing.
  """
  c = model.config
  module = Writer(config, len(c.experts), c.numbers)
  end = words_of(model)

  def loss_fn(trainable, frozen, batch, key):
    writer, params = trainable['writer'], frozen['model']
    states = jax.lax.stop_gradient(read_pairs(model, params, batch))
    start = module.apply({'params': writer}, model, params, states.scores, batch.get('numbers'),
                         method='start')
    adapters = module.apply({'params': writer}, method='adapters')
    table = word_table(model, params)
    total = count = right = 0.0
    for e, text in enumerate(batch['texts']):
      before = jnp.where(text == end, PAD, text)[..., :-1]  # the end has no embedding
      own = start.of(e)
      said = jnp.concatenate([own.first[:, :, None].astype(config.dtype),
                              told(model, params, own, before)], axis=2)
      hidden, _ = read_on(config, params['decoder'], said, text != PAD, states.of(e), adapters)
      compared = module.apply({'params': writer}, hidden)[1]
      loss, hit = _judged(compared, table, writer['end'],
                          output_rows(model, params, writer['end'], text), text)
      real = text != PAD
      total += jnp.where(real, loss, 0).sum()
      right += (real & hit).sum()
      count += real.sum()
    count = jnp.maximum(count, 1)
    return total / count, {'train/right': right / count}
  return loss_fn


def _judged(compared: jax.Array, table: jax.Array, end: jax.Array, rows: jax.Array,
            text: jax.Array) -> tuple[jax.Array, jax.Array]:
  """[..., T] -log p(token), and whether no other token was more likely; meaningless at padding.

  The table is frozen and its gradient as large as the logits: the end stands apart from it, and the
  token's own logit is of its row, so that nothing is scattered.

  Args:
    compared: [..., T, D] fp32.
    table: [V, D], the rows of words.
    end: [D], the row of token V.
    rows: [..., T, D] of the tokens themselves.
    text: [..., T] int32.
  """
  words, last = compared @ table.T, compared @ end
  loss = jnp.logaddexp(jax.nn.logsumexp(words, axis=-1), last) - (compared * rows).sum(-1)
  found = jnp.take_along_axis(words, jnp.clip(text, 0, len(table) - 1)[..., None], axis=-1)[..., 0]
  said = jnp.where(text == len(table), last, found)
  return loss, said >= jnp.maximum(words.max(-1), last)
