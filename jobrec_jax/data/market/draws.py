"""Random numbers that know their place: the same draw for a pair whoever asks for it, and when.

A block of entities has a NumPy generator of its own, named by (seed, stream, block). A pair has
counter-based draws, a hash of (seed, stream, candidate, job), so that the truth of any pair is
computed on demand and no result depends on the order or the number of workers.

Reference: Steele, Lea, Flood, Fast splittable pseudorandom number generators (2014): the finaliser.
"""

import numpy as np
from scipy.special import ndtri

from jobrec_jax.schema import streams


def pair_uniform(seed: int, stream: str, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
  """Uniform draws in the open (0, 1), one for each pair.

  Args:
    seed, stream: the root and the name of the draw.
    candidate, job: indices below 2^32; any shapes that broadcast.

  Returns:
    float64 in the broadcast shape.
  """
  key = streams.sequence(seed, stream).generate_state(1, np.uint64)[0]
  counter = (np.asarray(candidate, np.uint64) << np.uint64(32)) | np.asarray(job, np.uint64)
  with np.errstate(over='ignore'):  # arithmetic modulo 2^64 is what the hash wants
    return streams.unit(streams.finalise(counter * streams.GOLDEN + key), 0.5)


def pair_normal(seed: int, stream: str, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
  """Standard normal draws, one for each pair; see `pair_uniform`."""
  return ndtri(pair_uniform(seed, stream, candidate, job))


def bernoulli_positions(rng: np.random.Generator, p: float, size: int) -> np.ndarray:
  """Where `size` independent trials of probability p succeed, in time and memory of p * size.

  The gaps between successes are geometric, so the failures are never drawn.
  """
  expected = p * size
  successes, last = [], -1
  while last < size:
    gaps = rng.geometric(p, int(expected + 6 * np.sqrt(expected) + 16))
    successes.append(last + np.cumsum(gaps))
    last = int(successes[-1][-1])
  positions = np.concatenate(successes)
  return positions[positions < size]
