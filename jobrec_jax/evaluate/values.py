"""What labels and probabilities may be; the first value that is neither is named."""

import numpy as np

_ROUNDING = 1e-6  # probabilities in float32 may sum to a hair above 1


def binary(name: str, values: np.ndarray, mask: np.ndarray | bool = True) -> np.ndarray:
  """Labels as bool, False where masked.

  Args:
    name: of the values, for errors.
    values: [...] bool, or numbers that are 0 or 1.
    mask: [...] bool, False where a value does not count.

  Raises:
    ValueError: with the first other value and where it stands: a grade, nan, a text or the -1 of
      what was not observed is no label.
  """
  values = np.asarray(values)
  if values.dtype == bool:
    return values & mask
  _refuse(name, 'bool, or 0 and 1', values, (values == 0) | (values == 1), mask)
  return (values == 1) & mask


def probability(name: str, values: np.ndarray, mask: np.ndarray | bool = True) -> np.ndarray:
  """Probabilities in float64, 0 where masked.

  Args:
    name: of the values, for errors.
    values: [...] numbers or bool.
    mask: [...] bool, False where a value does not count.

  Raises:
    ValueError: with the first value that is none and where it stands: nan, or per cent.
  """
  values = np.asarray(values)
  fits = np.zeros(values.shape, bool)
  if values.dtype.kind in 'biuf':
    fits = (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)
  _refuse(name, 'probabilities in [0, 1]', values, fits, mask)
  return np.where(mask, values, 0).astype(np.float64)


def _refuse(name: str, allowed: str, values: np.ndarray, fits: np.ndarray,
            mask: np.ndarray | bool) -> None:
  if np.shape(mask) not in ((), values.shape):
    raise ValueError(f'{name} must be {np.shape(mask)} like mask, got {values.shape}')
  bad = np.broadcast_to(~fits & mask, values.shape)
  if not bad.any():
    return
  at = tuple(int(i) for i in np.argwhere(bad)[0])
  where = 'list {} at item {}' if len(at) == 2 else f'row {", ".join(["{}"] * len(at))}'
  raise ValueError(f'{name} must be {allowed}, got {values[at].item()!r} in {where.format(*at)} '
                   f'({int(bad.sum())} of {bad.size} are none)')
