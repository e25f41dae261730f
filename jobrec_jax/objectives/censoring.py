"""Weights that make outcomes seen only for applicants stand for every pair."""

import jax
import jax.numpy as jnp


def ips_weights(propensity: jax.Array, observed: jax.Array, clip: float,
                floor: float = 0.01, known: jax.Array | float = 1.0) -> jax.Array:
  """Self-normalised, clipped inverse propensities: w_i ~ 1 / (p_i e_i) over the observed pairs.

  Three steps. (1) r_i = 1 / (max(p_i, floor) e_i) where observed, 0 elsewhere, divided by the mean
  of r over the observed. (2) r_i <- min(r_i, clip): no pair starts above `clip` times the mean. (3)
  Divided by the new mean, so that the weights have mean 1 over the observed once more; after it
  the largest may pass `clip` by the mass that was cut off. The less likely an observation was, the
  more it counts. Unbiased, for many pairs and a large `clip`, where the outcome is independent of
  being observed given what the propensity is a function of; clipping trades bias for variance.

  Args:
    propensity: [...] p, the estimated probability that the outcome of each pair is observed. A
      constant to the gradient: no loss can be lowered by moving the weights.
    observed: [...] bool, which outcomes were.
    clip: largest weight as a multiple of the mean, at least 1.
    floor: the least estimate believed, above 0.
    known: [...] e, a factor of the propensity that is known and needs no floor, above 0, such as
      the logged probability of having been shown.

  Returns:
    [...] float32 weights; 0 where unobserved, mean 1 over the observed, all 0 where none is.

  Raises:
    ValueError: `clip` below 1 or `floor` not above 0.

  Reference:
    Swaminathan and Joachims, The self-normalized estimator for counterfactual learning, 2015.
  """
  if not floor > 0:
    raise ValueError(f'floor must be above 0, got {floor}')
  if not clip >= 1:
    raise ValueError(f'clip must be at least 1, the mean weight, got {clip}')
  observed = observed.astype(jnp.float32)
  count = jnp.maximum(observed.sum(), 1)

  def normalised(w: jax.Array) -> jax.Array:
    total = w.sum()
    return w * (count / jnp.where(total > 0, total, 1))

  raw = observed / (jnp.maximum(propensity.astype(jnp.float32), floor) * known)
  return jax.lax.stop_gradient(normalised(jnp.minimum(normalised(raw), clip)))
