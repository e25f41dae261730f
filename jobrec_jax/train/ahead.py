"""A training step compiled for devices that are not here: what it holds, computes and exchanges."""

from collections import defaultdict
from collections.abc import Callable, Mapping
import math
import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jobrec_jax.sharding import abstract_params, abstract_replicated, layout
from jobrec_jax.train.hlo import Collective, collectives
from jobrec_jax.train.speed import matrix_flops
from jobrec_jax.train.state import Best, TrainState, split_params, stepping

PyTree = Any


class Chip(NamedTuple):
  """A device's memory in bytes, its bfloat16 operations a second, and the bytes a second that all
  its links to other chips bring it."""

  hbm: float
  flops: float
  links: float


# By what JAX calls them; from Google's pages on TPU v5e, v5p and v6e, cloud.google.com/tpu/docs.
CHIPS = {'TPU v5 lite': Chip(16 * 2**30, 197e12, 200e9), 'TPU v5': Chip(95 * 2**30, 459e12, 600e9),
         'TPU v6 lite': Chip(32 * 2**30, 918e12, 400e9)}


def abstract_state(init: Callable[[], PyTree], frozen: Callable[[tuple[str, ...]], bool],
                   stored: str, tx: optax.GradientTransformation, measures: bool,
                   mesh: jax.sharding.Mesh) -> TrainState:
  """Shapes, types and places of the state that a stage begins with; nothing of it is made.

  Args:
    init: returns boxed parameters.
    frozen: whether the parameter of a path is.
    stored: type of frozen parameters.
    tx: the optimiser.
    measures: whether the best parameters by a held-out loss travel along.
    mesh: the mesh.
  """
  trainable, rest = split_params(abstract_params(init, mesh), frozen)
  rest = jax.tree.map(lambda x: x.update(dtype=jnp.dtype(stored)), rest)
  moments = optax.tree.map_params(
      tx, lambda _, param: param, jax.eval_shape(tx.init, trainable), trainable,
      transform_non_params=lambda x: abstract_replicated(x, mesh))
  counter = abstract_replicated(jax.ShapeDtypeStruct((), jnp.int32), mesh)
  best = Best(counter.update(dtype=jnp.float32), counter, trainable) if measures else ()
  return TrainState(counter, trainable, rest, moments, (), best)


def held(tree: PyTree) -> tuple[int, int]:
  """Bytes of abstract arrays on one device: of all, and of those that lie whole on each."""
  def size(x: jax.ShapeDtypeStruct) -> int:
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  leaves = jax.tree.leaves(tree)
  return sum(map(size, leaves)), sum(size(x) for x in leaves if x.sharding.is_fully_replicated)


def compile_step(update: Callable, state: TrainState, batch: PyTree,
                 mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Compiles a step for the mesh's devices, and tells of it.

  Args:
    update: (state, batch, key) -> (state, metrics); compiled as `stepping` does.
    state, batch: abstract arrays that say where they lie.
    mesh: of any devices, of a topology too.

  Returns:
    `device`, `chips`, `mesh`; `fits`, whether the compiler found room, and `refused`, what it said
    where not; `memory`, bytes a chip: arguments, replicated (of them), outputs (beside donated
    arguments), temporaries, total, and those that are there; `parts`, bytes a chip and of them
    replicated, of the arguments; `flops` of the matrix products of all chips, by type;
    `seconds_at_peak`, what they would take; `collectives`, by kind and inside loops or not, how
    many, bytes a chip; `seconds_exchanging`, what their bytes would take over all links of a chip;
    `gathers_all_layers`; or in place of the three `unread`, why this jaxlib cannot read the
    program; `trace_seconds`, `compile_seconds`.

  Raises:
    ValueError: it is not known what a device of this kind holds and computes.
  """
  device = mesh.devices.flat[0].device_kind
  if device not in CHIPS:
    raise ValueError(f'devices must be of a kind among {tuple(CHIPS)}, got {device!r}')
  key = abstract_replicated(jax.eval_shape(lambda: jax.random.key(0)), mesh)
  started = time.monotonic()
  with layout(mesh):
    traced = stepping(update).trace(state.replace(frozen=()), state.frozen, batch, key)
    lowered, refused = traced.lower(), ''
    traced_after, compiled = time.monotonic(), None
    try:
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      refused = _reason(str(error))
  done = time.monotonic()
  flops, chip = matrix_flops(traced.jaxpr.jaxpr), CHIPS[device]
  parts = {'frozen': state.frozen, 'trainable': state.trainable, 'moments': state.opt_state,
           'best': state.best, 'batch': batch, 'rest': (state.step, key)}
  row = {
      'device': device, 'chips': mesh.size, 'mesh': dict(mesh.shape), 'fits': not refused,
      'refused': refused, 'parts': {name: held(part) for name, part in parts.items()},
      'flops': dict(flops), 'seconds_at_peak': flops.total() / (mesh.size * chip.flops),
      'trace_seconds': round(traced_after - started, 1),
      'compile_seconds': round(done - traced_after, 1)}
  memory = {'arguments': sum(size for size, _ in row['parts'].values()),
            'replicated': sum(size for _, size in row['parts'].values()), 'there': chip.hbm}
  if compiled is None:
    return row | {'memory': memory}
  row |= {'memory': memory | _memory(compiled.memory_analysis())}
  try:
    found = collectives(compiled.as_text())
  except jax.errors.JaxRuntimeError as error:  # newer compilers write what this jaxlib cannot read
    return row | {'unread': str(error).partition('\n')[0]}
  exchanged = sum(one.bytes * one.times for one in found)
  return row | {'collectives': _summed(found), 'seconds_exchanging': exchanged / chip.links,
                'gathers_all_layers': _all_layers(found, state, mesh.shape['tensor'])}


def _memory(said: Any) -> dict[str, int]:
  outputs = said.output_size_in_bytes - said.alias_size_in_bytes
  return {'arguments': said.argument_size_in_bytes, 'outputs': outputs,
          'temporaries': said.temp_size_in_bytes,
          'total': said.argument_size_in_bytes + outputs + said.temp_size_in_bytes}


def _reason(said: str) -> str:
  """The compiler's sentence on the memory that it lacks, else its first line."""
  first = said.partition('\n')[0]
  found = re.search(r'Ran out of memory.*?(?= HLO module:|$)', first)
  return (found.group() if found else first).rstrip('. ')


def _summed(found: list[Collective]) -> list[dict[str, Any]]:
  """By kind, outside loops and inside: how many in the text, and bytes with their turns."""
  sums: defaultdict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0])
  for one in found:
    counted = sums[one.kind, one.loops > 0]
    counted[0] += 1
    counted[1] += one.bytes * one.times
  return [{'kind': kind, 'in_loop': loop, 'count': count, 'bytes': size}
          for (kind, loop), (count, size) in sorted(sums.items())]


def _all_layers(found: list[Collective], state: TrainState, tensor: int) -> bool:
  """Whether some kernel of all layers is put together on a device, but for its part on `tensor`."""
  stacked: Mapping[int, int] = {}
  for path, x in jax.tree_util.tree_leaves_with_path((state.trainable, state.frozen)):
    names = [getattr(p, 'key', None) for p in path]
    if 'layers' in names and names[-1] == 'kernel':
      least = stacked.get(x.shape[0], x.size)
      stacked = {**stacked, x.shape[0]: min(least, x.size // tensor)}
  return any(sizes and sizes[0] in stacked and math.prod(sizes) >= stacked[sizes[0]]
             for one in found if one.kind == 'all-gather' for sizes in one.shapes)
