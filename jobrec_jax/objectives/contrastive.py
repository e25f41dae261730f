"""InfoNCE over a masked list, with the logQ correction of sampled negatives."""

import jax
import jax.numpy as jnp

_MASKED = -1e30  # Finite, so that masked items have a zero gradient and never a nan.


def info_nce(scores: jax.Array, positive: jax.Array, mask: jax.Array,
             log_q: jax.Array | None = None) -> jax.Array:
  """-log softmax(scores - log_q)[positive] over the unmasked items of each list.

  Negatives drawn with probability q stand for the catalogue unevenly; subtracting log q from the
  logits undoes it: often-drawn items count for less. A list of its positive alone has loss 0.

  Args:
    scores: [..., J] logits.
    positive: [...] int, the index of the positive, an unmasked item.
    mask: [..., J] bool, False where a short list is padded.
    log_q: [..., J] log sampling probability of each item; None for uniform.

  Returns:
    [...] float32 loss of each list, in nats. A wholly masked list gives a finite value without
    gradient, for the caller to weight with 0.

  Reference:
    van den Oord et al., Representation learning with contrastive predictive coding, 2018; Yi et
    al., Sampling-bias-corrected neural modeling for large corpus item recommendations, 2019.
  """
  logits = scores.astype(jnp.float32)
  if log_q is not None:
    logits = logits - log_q
  log_p = jax.nn.log_softmax(jnp.where(mask, logits, _MASKED), axis=-1)
  return -jnp.take_along_axis(log_p, positive[..., None], axis=-1)[..., 0]
