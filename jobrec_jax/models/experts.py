"""Experts: what each reads the pair with (a readout token) and what it says of it (a head)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jobrec_jax.models.axes import partitioned

GAIN = 4.0  # of a number's own weight in a score: Adam moves one as far as one of a layer's many
ACTIVATION = 'gelu'  # of the heads, with the error function
MOST = 5.0  # of its scale: where a number is cut off


class ExpertHead(nn.Module):
  """One expert's logit of a pair: an MLP D -> widths -> 1 with GELU and dropout, in fp32.

  The published heads have ReLU. Its kink lets a rounding decide whether a unit that has learned
  nothing yet gets a gradient, and Adam moves it by a whole step then: with ReLU the same run, on
  another mesh or compiled otherwise, was apart by 1e-2 within sixty steps, with GELU by 1e-6.

  The widest kernel, that of the states, is divided like them; the others are small and replicated.

  Attributes:
    widths: hidden widths.
    dropout: rate after each hidden layer; draws from the 'dropout' stream.
    read: rate of dropout on the state that it reads.
    last: what the last layer's kernel starts as.
  """

  widths: tuple[int, ...] = (512, 256)
  dropout: float = 0.1
  read: float = 0.0
  last: nn.initializers.Initializer = nn.linear.default_kernel_init

  @nn.compact
  def __call__(self, hidden: jax.Array, deterministic: bool = True) -> jax.Array:
    """Args: hidden [..., D]; deterministic: no dropout. Returns [...] fp32 logits."""
    x = nn.Dropout(self.read)(hidden.astype(jnp.float32), deterministic=deterministic)
    for i, width in enumerate(self.widths):
      start = partitioned(nn.initializers.he_normal(), None if i else 'embed', None)
      x = nn.Dense(width, kernel_init=start, name=f'hidden_{i}')(x)
      x = nn.Dropout(self.dropout)(nn.gelu(x, approximate=False), deterministic=deterministic)
    return nn.Dense(1, kernel_init=self.last, name='logit')(x)[..., 0]


def linear_scores(numbers: jax.Array, scale: jax.Array, weights: jax.Array,
                  match: jax.Array | None) -> jax.Array:
  """The linear part of the experts' scores: GAIN x . weights_e + u match_e v.

  x = clip(numbers * scale, -MOST, MOST), and u and v are its last 2 R numbers, which are of the
  candidate and of the job: some words of one side go with others of the other side.

  Args:
    numbers: [B, J, N].
    scale: [N], a constant.
    weights: [E, N].
    match: [E, R, R], or None for no products.

  Returns:
    [B, J, E].

  Reference:
    Cheng et al., Wide and deep learning for recommender systems, 2016.
  """
  x = jnp.clip(numbers * jax.lax.stop_gradient(scale), -MOST, MOST)
  scores = GAIN * jnp.einsum('bjn,en->bje', x, weights)
  if match is None:
    return scores
  u, v = jnp.split(x[..., -2 * match.shape[1]:], 2, axis=-1)
  return scores + jnp.einsum('bjr,ers,bjs->bje', u, match, v)
