"""Runs before any test imports JAX: fake CPU devices, and compiled programs kept.

Where JAX_PLATFORMS is set, tests run there, e.g. on a GPU; those that need eight devices fail then.

Programs run for milliseconds here and compile for seconds, so the compiler is told to hurry.
"""

from importlib.metadata import version
import os
from pathlib import Path
import signal

from tests.shares import (
  DEVICES,
  pytest_collection_modifyitems as pytest_collection_modifyitems,
  pytest_ignore_collect as pytest_ignore_collect,
)

os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_'
                           f'device_count={DEVICES}').strip()
if os.environ.setdefault('JAX_PLATFORMS', 'cpu') == 'cpu':
  os.environ['XLA_FLAGS'] += ' --xla_backend_optimization_level=0'
  if version('jaxlib').startswith('0.10.'):  # Another version may not know it, and would exit.
    os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'  # a third less to compile
# Not the user's own cache, in processes that a test starts neither.
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(Path(__file__).parents[1] / '.cache' / 'jax')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
# A shell starts what it runs in the background with SIGINT ignored, which processes inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)
if 'PYTEST_XDIST_WORKER' in os.environ:  # Threads of several workers would wait for each other.
  os.environ['OMP_NUM_THREADS'] = '1'

import jax
import pytest

from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import (
    BlockEncoder,
    BlockFormat,
    corpus,
    train_tokenizer,
)
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.sharding import MeshConfig, make_mesh

pytest_plugins = ['tests.no_skips']
MAPS, MANY = Path('/proc/self/maps'), 25_000
LENGTHS = BlockFormat(candidate=40, job=24, alignment=16)


@pytest.fixture(autouse=True, scope='module')
def few_memory_maps():
  """Lets go of compiled programs where they are many.

  Each keeps maps of memory, of which Linux gives a process 65,530; one that needs more crashes.
  """
  yield
  if MAPS.exists() and MAPS.read_bytes().count(b'\n') > MANY:
    jax.clear_caches()


@pytest.fixture(scope='session')
def market():
  """A small market: (dataset, truth)."""
  return simulate(MarketConfig(candidates=60, jobs=20, exposure=0.6), seed=3)


@pytest.fixture(scope='session')
def dataset(market):
  return market[0]


@pytest.fixture(scope='session')
def tokenizer(dataset):
  return train_tokenizer(corpus(dataset, pairs=200), 512)


@pytest.fixture(scope='session')
def blocks(dataset, tokenizer):
  return BlockEncoder(dataset, tokenizer, LENGTHS)


@pytest.fixture(scope='session')
def model():
  """Small experts whose every axis divides by two."""
  return JobRec(JobRecConfig(head_widths=(16,), decoder=DecoderConfig(
      vocab_size=512, width=16, layers=2, heads=2, kv_heads=2, head_width=8, mlp_width=32)))


@pytest.fixture(scope='session')
def one_device():
  return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope='session')
def tiny_folder(tmp_path_factory) -> Path:
  """The folder of a finished tiny run, to be read or copied and never changed.

  One for the whole session, whatever the number of workers: its store has locks.
  """
  from jobrec_jax.pipeline.report import report  # here, for few tests need what it imports
  base = tmp_path_factory.getbasetemp()
  run = _tiny(base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base)
  report(run)
  return run.folder


@pytest.fixture
def tiny_run(tiny_folder):
  return _tiny(tiny_folder.parent)


def _tiny(base: Path):
  from jobrec_jax.pipeline.run import Run
  from tests.pipeline.tiny import tiny_settings
  return Run(base / 'tiny', tiny_settings())
