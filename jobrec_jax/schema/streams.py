"""Random streams by name: what two uses draw never meets, whatever their seeds.

A stream is named by what it is for. Seeds are never added to: `seed + 1` of one use is `seed` of
the next run's, and replicates of a study would share their draws.
"""

import zlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def sequence(seed: int, name: str, *parts: int) -> np.random.SeedSequence:
  """The entropy of a stream; `parts` number what it draws in pieces, such as blocks."""
  return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *parts))


def rng(seed: int, name: str, block: int = 0) -> np.random.Generator:
  """NumPy's generator of a stream, or of one of its blocks."""
  return np.random.default_rng(sequence(seed, name, block))


def seed32(seed: int, name: str) -> int:
  """A 32-bit seed for libraries that take a number alone (Grain, JAX, scikit-learn)."""
  return int(sequence(seed, name).generate_state(1, np.uint32)[0])


def split_mix(x: np.ndarray) -> np.ndarray:
  """One SplitMix64 step of uint64 values; products wrap modulo 2^64 by design.

  Reference:
    Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014.
  """
  return finalise(x + GOLDEN)


def finalise(x: np.ndarray) -> np.ndarray:
  """SplitMix64's finaliser of uint64 values: every bit of the result hangs on every bit of x."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def unit(bits: np.ndarray, offset: float = 0.0) -> np.ndarray:
  """uint64 bits as float64 in [0, 1): the upper 53 bits, `offset` in units of the last."""
  return ((bits >> np.uint64(11)).astype(np.float64) + offset) * 2.0 ** -53
