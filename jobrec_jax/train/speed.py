"""How fast training is: seconds, tokens, memory, and the share of the measured matrix peak."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp

from jobrec_jax.schema.progress import peak_memory

PREFIX = 'speed/'  # of scalars that no two runs share, whatever they compute
_SIDE = {'cpu': 1024}  # of the squares whose product is the peak
_OTHER_SIDE = 8192


def matrix_flops(jaxpr: Any) -> Counter[str]:
  """Floating-point operations of all matrix products of a program, by type of what is multiplied.

  `2 * size of the product * length of what is summed` for each, counted in the program as it was
  traced: padding, the backward pass and whatever it computes again are in it, frozen weights whose
  gradient nobody asks for are not. The body of a scan counts once for each turn, that of a
  `while`, whose turns nobody knows, once; of a `cond` the branch with the most counts.

  Args:
    jaxpr: e.g. `jax.jit(f).trace(...).jaxpr.jaxpr`; shapes are those of all devices together.
  """
  flops: Counter[str] = Counter()
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      left = eqn.invars[0].aval
      (summed, _), _ = eqn.params['dimension_numbers']
      flops[left.dtype.name] += (2 * eqn.outvars[0].aval.size
                                 * math.prod(left.shape[i] for i in summed))
      continue
    inner = [matrix_flops(j) for value in eqn.params.values() for j in _programs(value)]
    if eqn.primitive.name == 'cond':
      inner = [max(inner, key=Counter.total)]
    times = {'scan': lambda p: p['length'], 'shard_map': lambda p: p['mesh'].size}.get(
        eqn.primitive.name, lambda p: 1)(eqn.params)
    for each in inner:
      for dtype, count in each.items():
        flops[dtype] += times * count
  return flops


def _programs(value: Any) -> Iterator[Any]:
  """The programs among the parameters of an operation."""
  if hasattr(value, 'eqns'):
    yield value
  elif hasattr(value, 'jaxpr'):
    yield value.jaxpr
  elif isinstance(value, tuple | list):
    for x in value:
      yield from _programs(x)


@functools.cache
def matrix_peak(dtype: str) -> float:
  """Operations a second of large square products on all devices at once.

  Measured when it is first asked for in a process, the best of three tries behind the one that
  compiles; as precise as the default of the backend, as products in training are.
  """
  with ThreadPoolExecutor(1) as thread:  # of its own, for a mesh holds in the thread that set it
    return thread.submit(_measure, dtype).result()


def _measure(dtype: str) -> float:
  side = _SIDE.get(jax.default_backend(), _OTHER_SIDE)
  product = jax.jit(jnp.matmul)
  square = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
  squares = [jax.device_put(square, device) for device in jax.local_devices()]
  products, best = (1 if side < _OTHER_SIDE else 4), math.inf
  for attempt in range(4):
    started = time.perf_counter()
    for _ in range(products):
      last = [product(x, x) for x in squares]  # returns before it is computed
    jax.block_until_ready(last)
    if attempt:
      best = min(best, time.perf_counter() - started)
  return 2 * side**3 * products * jax.device_count() / best


def ideal_seconds(flops: Mapping[str, float]) -> float:
  """What the matrix products would take at the peak."""
  return sum(count / matrix_peak(dtype) for dtype, count in flops.items())


def memory() -> float:
  """MiB: the most that the first device held, where the backend says so; else this process."""
  said = jax.local_devices()[0].memory_stats() or {}
  peak = said.get('peak_bytes_in_use')
  return float(peak_memory()) if peak is None else peak / 2**20


def scalars(seconds: float, ideal: float, tokens: float | None = None) -> dict[str, float]:
  """The row of a step that took `seconds`.

  speed/step_seconds; speed/tokens_per_second, where tokens are known; speed/share_of_peak, `ideal`
  over `seconds`; speed/memory_mib.
  """
  row = {'step_seconds': seconds, 'share_of_peak': ideal / seconds, 'memory_mib': memory()}
  if tokens is not None:
    row['tokens_per_second'] = tokens / seconds
  return {PREFIX + name: value for name, value in row.items()}


class Speedometer:
  """Scalars of the steps between two looks; the device must be idle at each.

  speed/goodput is the share of the stage's wall-clock time that went into steps which count; the
  rest compiles, measures held-out losses, does steps again that a kill lost, or waits to be started
  again.

  Args:
    flops: of a step, by type; see `matrix_flops`.
    began: when the first attempt at the stage did, in seconds since 1970; None for now.
    spent: seconds of the steps that earlier attempts did and that count.
  """

  def __init__(self, flops: Mapping[str, float], began: float | None = None, spent: float = 0.0):
    self._flops, self._spent = flops, spent
    self._began = time.time() if began is None else began
    self._last: tuple[int, float] | None = None

  def look(self, step: int, tokens: float | None) -> dict[str, float]:
    """Scalars of the mean step since the last look, whose batch had so many tokens.

    Empty at the first look: what came before it compiled, and the peak is measured now, before
    the clock starts.
    """
    now, row = time.monotonic(), {}
    ideal = ideal_seconds(self._flops)
    if self._last is not None and step > self._last[0] and now > self._last[1]:
      row = scalars((now - self._last[1]) / (step - self._last[0]), ideal, tokens)
      self._spent += now - self._last[1]
      wall = max(time.time() - self._began, self._spent)  # a clock may have been set
      row[f'{PREFIX}goodput'] = self._spent / wall
    self._last = step, time.monotonic()
    return row


def timed(program: Callable, *args: Any) -> tuple[Any, float, Counter[str]]:
  """A stage that is one program: (result, seconds behind compilation, its matrix products)."""
  traced = jax.jit(program).trace(*args)
  compiled = traced.lower().compile()
  started = time.monotonic()
  out = jax.block_until_ready(compiled(*args))
  return out, time.monotonic() - started, matrix_flops(traced.jaxpr.jaxpr)
