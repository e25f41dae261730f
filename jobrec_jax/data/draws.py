"""Random numbers that know their place: the same draw for a pair whoever asks for it, and when.

A block of entities has a NumPy generator of its own, named by (seed, stream, block). A pair has
counter-based draws, a hash of (seed, stream, candidate, job), so that the truth of any pair is
computed on demand and no result depends on the order or the number of workers.

Reference: Steele, Lea, Flood, Fast splittable pseudorandom number generators (2014): the finaliser.
"""

import zlib

import numpy as np
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _name(stream: str) -> int:
  return zlib.crc32(stream.encode())


def block_rng(seed: int, stream: str, block: int = 0) -> np.random.Generator:
  """The generator of one block of one stream."""
  return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_name(stream), block)))


def pair_uniform(seed: int, stream: str, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
  """Uniform draws in the open (0, 1), one for each pair.

  Args:
    seed, stream: the root and the name of the draw.
    candidate, job: indices below 2^32; any shapes that broadcast.

  Returns:
    float64 in the broadcast shape.
  """
  key = np.random.SeedSequence(seed, spawn_key=(_name(stream),)).generate_state(1, np.uint64)[0]
  counter = (np.asarray(candidate, np.uint64) << np.uint64(32)) | np.asarray(job, np.uint64)
  with np.errstate(over='ignore'):  # arithmetic modulo 2^64 is what the hash wants
    x = counter * _GOLDEN + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  x ^= x >> np.uint64(31)
  return ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0 ** -53


def pair_normal(seed: int, stream: str, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
  """Standard normal draws, one for each pair; see `pair_uniform`."""
  return ndtri(pair_uniform(seed, stream, candidate, job))


def bernoulli_positions(rng: np.random.Generator, p: float, size: int) -> np.ndarray:
  """Where `size` independent trials of probability p succeed, in time and memory of p * size.

  The gaps between successes are geometric, so the failures are never drawn.
  """
  expected = p * size
  found, last = [], -1
  while last < size:
    gaps = rng.geometric(p, int(expected + 6 * np.sqrt(expected) + 16))
    found.append(last + np.cumsum(gaps))
    last = int(found[-1][-1])
  positions = np.concatenate(found)
  return positions[positions < size]
