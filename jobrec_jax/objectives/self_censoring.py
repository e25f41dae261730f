"""Who wants a job and does not dare to apply: the application as a product of two chances."""

import jax
import jax.numpy as jnp


def application_logit(s_pref: jax.Array, s_qual: jax.Array, doubt: float) -> jax.Array:
  """The logit of P d(Q), P = sigmoid(s_pref), Q = sigmoid(s_qual), d(Q) = 1 - c (1 - Q).

  An application shows that a candidate wants the job and dares to apply, and who doubts to be found
  eligible dares less. A preference expert that is fitted to applications learns P d(Q), and so a
  part of Q; fitted through this function, it learns P.

  Args:
    s_pref, s_qual: [...] logits.
    doubt: c in [0, 1); 0: nobody doubts, and s_pref is the logit.

  Returns:
    [...] float32.
  """
  if not 0 <= doubt < 1:
    raise ValueError(f'doubt must be in [0, 1), got {doubt}')
  if doubt == 0:
    return s_pref
  log_daring = jnp.log1p(-doubt * jax.nn.sigmoid(-s_qual))
  log_not = jnp.log(doubt) + jax.nn.log_sigmoid(-s_qual)  # log(1 - d)
  log_p = jax.nn.log_sigmoid(s_pref)
  return log_p + log_daring - jnp.logaddexp(jax.nn.log_sigmoid(-s_pref), log_p + log_not)
