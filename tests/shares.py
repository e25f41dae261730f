"""The suite in two runs, as `make test` has it: what needs eight devices, and the rest on two.

JOBREC_TEST_DEVICES is 8 for the one and 2 for the other, which compiles and runs faster there.
Without it all tests run on eight.
"""

import os
from pathlib import Path

HERE = Path(__file__).parent
EIGHT = {HERE / name for name in (
    'processes', 'test_sharding.py', 'models/test_chunks.py', 'models/test_splash_attention.py',
    'pipeline/test_compile_ahead.py', 'pipeline/test_compile_search.py', 'scoring/test_batches.py',
    'train/test_checkpoint.py', 'train/test_hlo.py', 'train/test_sweep.py',
    'weights/test_huggingface.py')}
ASKED = os.environ.get('JOBREC_TEST_DEVICES', '')
if ASKED not in ('', '2', '8'):
  raise ValueError(f'JOBREC_TEST_DEVICES must be 2, 8 or not set, got {ASKED!r}')
DEVICES = ASKED or '8'


def pytest_ignore_collect(collection_path):
  """Does not even read what is the other run's."""
  if collection_path.is_dir() and collection_path not in EIGHT:
    return None
  return True if _is_of_the_other(collection_path) else None


def pytest_collection_modifyitems(config, items):
  """Leaves it out where it was named, too: pytest reads that whatever the hook above says."""
  other = [item for item in items if _is_of_the_other(item.path)]
  if other:
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if item not in other]


def _is_of_the_other(path: Path) -> bool:
  needs_eight = bool(EIGHT & {path, path.parent})
  return ASKED != '' and needs_eight != (ASKED == '8')
