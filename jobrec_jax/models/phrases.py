"""Where the embeddings of phrases start."""

import jax
import jax.numpy as jnp

from jobrec_jax.data.tokens import PAD


@jax.jit
def phrase_embeddings(table: jax.Array, pieces: jax.Array) -> jax.Array:
  """Where `phrases` start: the mean embedding of what each consists of.

  Args:
    table: [V, D], the decoder's.
    pieces: [phrases, L] int32 token ids of every phrase, `PAD` behind them.

  Returns:
    [phrases, D] fp32.
  """
  real = (pieces != PAD)[..., None]
  rows = jnp.take(table, jnp.where(pieces == PAD, 0, pieces), axis=0).astype(jnp.float32)
  return jnp.where(real, rows, 0).sum(axis=1) / real.sum(axis=1)
