"""Stage 1C: the writer learns reasons on what frozen experts read; no score can change."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.writer import (
  Writer,
  embed,
  output_table,
  read_on,
  read_pairs,
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
    jobs, and 'texts' [B, J, E, T] int32, of each expert's perspective, the end behind each and then
    `PAD`; an empty text teaches nothing.
  """
  c = model.config
  module = Writer(config, len(c.experts), c.numbers)
  end = words_of(model)

  def loss_fn(trainable, frozen, batch, key):
    writer, params = trainable['writer'], frozen['model']
    texts = batch['texts']
    states = jax.lax.stop_gradient(read_pairs(model, params, batch))
    start = module.apply({'params': writer}, model, params, states.scores, batch.get('numbers'),
                         method='start')
    adapters = module.apply({'params': writer}, method='adapters')
    table = output_table(model, params, writer['end'])
    total = count = right = 0.0
    for e in range(len(c.experts)):
      text = texts[:, :, e]
      before = jnp.where(text == end, PAD, text)[..., :-1]  # the end has no embedding
      said = jnp.concatenate([start[:, :, e, None].astype(config.dtype),
                              embed(model, params, before)],
                             axis=2)
      hidden, _ = read_on(config, params['decoder'], said, text != PAD, states.of(e), adapters)
      compared = module.apply({'params': writer}, hidden)[1]
      logits = jnp.einsum('bjtd,vd->bjtv', compared, table)
      real = text != PAD
      loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(real, text, 0))
      total += jnp.where(real, loss, 0).sum()
      right += (real & (logits.argmax(-1) == text)).sum()
      count += real.sum()
    count = jnp.maximum(count, 1)
    return total / count, {'train/right': right / count}
  return loss_fn
