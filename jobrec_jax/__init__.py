"""Job recommendation: what candidates want and what they qualify for, learned apart.

    import jobrec_jax
    run = jobrec_jax.Run('runs/mine', jobrec_jax.Settings())
    run.report()                                       # trains, fits the policy, measures, reports
    loaded = jobrec_jax.load('runs/mine')
    loaded.recommend(candidate, tau=0.6)[0].jobs       # ranks jobs for new candidates

The names are imported when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jobrec_jax.pipeline.load import load as load
  from jobrec_jax.pipeline.run import Run as Run
  from jobrec_jax.pipeline.settings import Settings as Settings

__all__ = ['Run', 'Settings', '__version__', 'load']
_HOMES = {'load': 'pipeline.load', 'Run': 'pipeline.run', 'Settings': 'pipeline.settings'}


def __getattr__(name: str) -> Any:
  if name == '__version__':
    from importlib import metadata
    try:
      value = metadata.version('jobrec_jax')
    except metadata.PackageNotFoundError:  # a checkout that is not installed
      value = '0+unknown'
  elif name in _HOMES:
    value = getattr(importlib.import_module(f'jobrec_jax.{_HOMES[name]}'), name)
  else:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
