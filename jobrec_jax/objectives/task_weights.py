"""How the losses of several tasks become one."""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

METHODS = ('uncertainty', 'softmax', 'fixed')


class TaskWeights(NamedTuple):
  """`init() -> params`, for the trainable tree; `combine(params, losses) -> (total, weights)`."""

  init: Callable[[], dict[str, jax.Array]]
  combine: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


def task_weights(method: str, tasks: int, fixed: Sequence[float] | None = None) -> TaskWeights:
  """Weighs the losses L_i of C tasks, by parameters that train along with the model.

  `uncertainty`: total = sum_i exp(-s_i) L_i + s_i. The loss falls with s_i until the weight
  exp(-s_i) is 1 / L_i, so that each task counts relative to its own level and none can be dropped.
  `softmax`: weights = softmax(a), total = sum_i weights_i L_i. Descent moves weight to the smaller
  loss without end; it serves comparison with published runs.
  `fixed`: the given weights, no parameters.

  Args:
    method: one of `METHODS`.
    tasks: C.
    fixed: the C weights of `fixed`, none negative and not all zero; unused by the other methods.

  Returns:
    A pair of pure functions. `combine` takes losses [C] and gives the total, a scalar, and the
    weights [C], float32. Weights start at 1 (`uncertainty`) or 1 / C (`softmax`).

  Raises:
    ValueError: an unknown method, or fixed weights that are not as above.

  Reference:
    Kendall, Gal and Cipolla, Multi-task learning using uncertainty to weigh losses, CVPR 2018; s is
    the log variance, up to the constant factors that depend on the likelihood.
  """
  if method == 'uncertainty':
    def combine(params, losses):
      s = params['log_variance']
      return jnp.sum(jnp.exp(-s) * losses + s), jnp.exp(-s)
    return TaskWeights(lambda: {'log_variance': jnp.zeros(tasks)}, combine)

  if method == 'softmax':
    def combine(params, losses):
      weights = jax.nn.softmax(params['logits'])
      return jnp.sum(weights * losses), weights
    return TaskWeights(lambda: {'logits': jnp.zeros(tasks)}, combine)

  if method == 'fixed':
    if (fixed is None or len(fixed) != tasks or not max(fixed) > 0
        or not all(0 <= w < math.inf for w in fixed)):
      raise ValueError(f'fixed task weights must be {tasks} numbers >= 0, not all 0; got {fixed}')
    weights = jnp.asarray(fixed, jnp.float32)
    return TaskWeights(dict, lambda params, losses: (jnp.sum(weights * losses), weights))

  raise ValueError(f'task weights must be one of {", ".join(METHODS)}; got {method!r}')
