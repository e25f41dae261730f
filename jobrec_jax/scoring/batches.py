"""Pairs in lists, lists in batches of a few sizes, and batches made ahead of their use."""

from collections import deque
from collections.abc import Iterator
import concurrent.futures
from typing import TypeVar

import jax
import numpy as np

T = TypeVar('T')


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
  """The items of an iterator, which a thread makes up to `depth` ahead of their use.

  What the iterator raises is raised here, at its place. The thread has ended when this is
  exhausted, closed, or has raised.
  """
  end = object()
  with concurrent.futures.ThreadPoolExecutor(1, 'ahead') as pool:
    queue = deque(pool.submit(next, items, end) for _ in range(depth))
    try:
      while (item := queue.popleft().result()) is not end:
        queue.append(pool.submit(next, items, end))
        yield item
    finally:
      for future in queue:
        future.cancel()


def ladder(batch: int, mesh: jax.sharding.Mesh) -> tuple[int, ...]:
  """The sizes of batches, largest first: all, a quarter, one; each divides over the devices."""
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  sizes = {-(-max(size, 1) // parts) * parts for size in (batch, batch // 4, 1)}
  return tuple(sorted(sizes, reverse=True))


def calls(lists: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
  """(where a batch starts, its size) until all lists are in one; a request compiles one program.

  Many lists go into full batches, the last one filled up. Fewer go into batches of one size, the
  largest that they fill by more than half.
  """
  size = sizes[0]
  if lists < sizes[0]:
    size = next((s for s in sizes if 2 * lists > s * -(-lists // s)), sizes[-1])
  yield from ((at, size) for at in range(0, lists, size))


def lists_of(candidate: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
  """Sorted candidates [n] -> where each list of one candidate starts, and its length: [lists]."""
  runs = np.append(np.flatnonzero(np.diff(candidate, prepend=-1)), len(candidate))
  count = -(-np.diff(runs) // longest)  # lists of each run
  run = np.repeat(np.arange(len(count)), count)
  start = runs[run] + longest * (np.arange(len(run)) - (np.cumsum(count) - count)[run])
  return start, np.minimum(runs[run + 1] - start, longest)


def distinct(indices: np.ndarray, count: int) -> np.ndarray:
  """The distinct indices below `count`, ascending."""
  there = np.zeros(count, bool)
  there[indices] = True
  return np.flatnonzero(there)
