"""Names in the models: logical axes, whose mesh axes are not said here, and results to remember.

Letters of shapes, here and in all rooms above, unless a docstring says otherwise:

| letter | axis |
|---|---|
| B | lists, or sequences |
| J | items of a list |
| L | tokens of a block |
| T, S | tokens that ask (queries), tokens that are asked (keys) |
| D | model width |
| N, K, G | heads, kv heads, heads that share one: N = K * G |
| H | width of a head |
| F | width of an MLP |
| V | vocabulary |
| R | rank of an adapter |
| E | experts |
| C | constraints |
| U | entities of a side, each read once |
| P | passes over the text: one, or one for each expert that has adapters |

The dual's letters stand in `lagrangian.exact`; on the host N counts lists or pairs.
"""

from collections.abc import Callable
import math

import flax.linen as nn
from flax.linen import spmd
import jax

# Activations take 'batch' to 'embed' and 'heads' to 'mlp'; parameters take 'embed' to 'layers', and
# adapters 'projected' where they meet heads or an MLP, whose own axes are one there.
# Rules that give 'batch' and 'embed' one mesh axis must let 'embed' fall back to None.
AXES = frozenset((
  'batch', 'items', 'tokens', 'embed', 'heads', 'kv_heads', 'head', 'mlp', 'vocab', 'experts',
  'layers', 'projected',
))
COSTLY = 'costly'  # `checkpoint_name` of products: remat policies may keep these and little else


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """Constrains the sharding of an activation; without logical rules in force, returns it as it is.

  Args:
    x: array of any shape.
    names: one of `AXES`, or None for replicated, for each axis of x.

  Returns:
    x, unchanged in value.

  Raises:
    ValueError: an unknown name, a count other than x.ndim, or a name that the rules leave out.
  """
  _check(names, x.shape)
  return nn.with_logical_constraint(x, names, fallback=spmd.RulesFallback.RAISE_ERROR)


def partitioned(init: Callable, *names: str | None) -> Callable:
  """An initialiser whose parameter carries its logical axis names.

  Raises:
    ValueError: an unknown name.
  """
  _check(names, names)
  return nn.with_logical_partitioning(init, names)


def divided(size: int, name: str) -> int:
  """How much of an activation's axis of a size one device holds, by the mesh and rules in force."""
  return -(-size // parts(name))


def parts(name: str) -> int:
  """Over how many devices an activation's axis is divided, by the mesh and rules in force."""
  _check((name,), (name,))
  mesh, rules = jax.sharding.get_abstract_mesh(), dict(reversed(nn.get_logical_axis_rules()))
  axes = rules.get(name) or ()
  return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes)
                   if axis in mesh.shape and axis not in mesh.manual_axes)


def platform() -> str:
  """What is computed for: that of the mesh in force, which may have none of this machine's devices.

  Such as 'cpu' or 'tpu'; without a mesh that of this process.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def _check(names: tuple, shape: tuple) -> None:
  unknown = [name for name in names if name is not None and name not in AXES]
  if unknown:
    raise ValueError(f'logical axes must be among {sorted(AXES)}, got {unknown}')
  if len(names) != len(shape):
    raise ValueError(f'logical axes must be one name for each axis of {shape}, got {names}')
