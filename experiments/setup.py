"""What every script does first: flags, a validated config, the run folder, the data, the mesh."""

from collections.abc import Callable
import dataclasses
import json
from logging import WARNING
import operator
from pathlib import Path
import sys
import traceback
from typing import Any, NamedTuple, TypeVar

from absl import app, flags, logging
import jax
from ml_collections import ConfigDict, config_flags

from jobrec_jax.data.dataset import Dataset, Truth
from jobrec_jax.data.files.jsonl import read_jsonl
from jobrec_jax.data.files.paper_csv import read_published
from jobrec_jax.data.files.recbole import read_atomic
from jobrec_jax.data.market.domain import load_domain
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.repair import deal_shared_negatives
from jobrec_jax.data.tokens import BlockLengths
from jobrec_jax.evaluate.audit import audit
from jobrec_jax.evaluate.certification import CertifyConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.schema.files import write_text
from jobrec_jax.sharding import MeshConfig
from jobrec_jax.train.policy import PolicyConfig
from jobrec_jax.train.state import OptimizerConfig

T = TypeVar('T')
SOURCES = ('simulated', 'jobrec_synth', 'jsonl', 'published', 'recbole')
LEAST = {'policy.knots': 2, 'policy.grid': 2, 'policy.width': 1, 'policy.lists': 1,
         'policy.held_out': 1, 'policy.list_length': 2, 'features.list_length': 1,
         'features.batch': 1}


def define_flags(config: str, workdir: str | None = None) -> None:
  """Defines --config (with --config.key=value overrides) and --workdir."""
  config_flags.DEFINE_config_file('config', config, 'settings; override with --config.key=value')
  flags.DEFINE_string('workdir', workdir, 'the run folder: everything is read and written there')
  if workdir is None:
    flags.mark_flag_as_required('workdir')
  for name in ('config', 'workdir'):  # so that --help of the script shows them
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def run_main(main: Callable[[ConfigDict, str], None], config: str,
             workdir: str | None = None) -> None:
  """Defines the flags and runs main(config, workdir).

  A ValueError that our own code raised ends it with the message alone and status 2.
  """
  define_flags(config, workdir)

  def start(argv: list[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f'unknown arguments: {argv[1:]}')
    try:
      main(flags.FLAGS.config, flags.FLAGS.workdir)
    except ValueError as error:
      *_, (frame, _) = traceback.walk_tb(error.__traceback__)
      if frame.f_globals['__name__'].split('.')[0] not in ('__main__', 'experiments', 'jobrec_jax'):
        raise
      print(f'error: {error}', file=sys.stderr)
      sys.exit(2)
    except KeyboardInterrupt:
      print('interrupted; the same command resumes', file=sys.stderr)
      sys.exit(130)
  app.run(start)


def section(cls: type[T], values: ConfigDict, **more: Any) -> T:
  """A frozen dataclass from the keys of a config section that it has fields for."""
  names = [f.name for f in dataclasses.fields(cls) if f.name not in more]
  return cls(**{name: getattr(values, name) for name in names}, **more)


class Settings(NamedTuple):
  """The settings that can be wrong on their own, checked before anything runs."""

  market: MarketConfig
  mesh: MeshConfig
  warm_up: OptimizerConfig
  cooperative: OptimizerConfig
  policy: PolicyConfig
  certify: CertifyConfig


def validate(config: ConfigDict) -> Settings:
  """Builds every settings object; a bad value raises a ValueError that names its key."""
  if config.data.source not in SOURCES:
    raise ValueError(f'data.source must be one of {SOURCES}, got {config.data.source!r}')
  if config.data.source != 'simulated' and not config.data.folder:
    raise ValueError('data.folder must name the folder of the data when data.source is '
                     f"{config.data.source!r}, got ''")
  if config.tokenizer.phrases and not config.backbone.path:
    raise ValueError('tokenizer.phrases: allowed 0 without backbone.path, for a tokenizer that is '
                     f'trained here has its phrases already, got {config.tokenizer.phrases}')
  if config.tokenizer.phrases < 0:
    raise ValueError(f'tokenizer.phrases must be at least 0, got {config.tokenizer.phrases}')
  for key, least in LEAST.items():
    value = operator.attrgetter(key)(config)
    if not value >= least:
      raise ValueError(f'{key} must be at least {least}, got {value!r}')
  if not config.policy.bound > 0:
    raise ValueError(f'policy.bound must be positive, got {config.policy.bound!r}')
  if not config.sweep.seeds:
    raise ValueError('sweep.seeds must name at least one seed, got ()')
  section(LoraConfig, config.lora)
  section(BlockLengths, config.tokenizer)
  return Settings(section(MarketConfig, config.market), section(MeshConfig, config.mesh),
                  _named('warm_up', lambda: section(OptimizerConfig, config.warm_up)),
                  _named('cooperative', lambda: section(OptimizerConfig, config.cooperative)),
                  section(PolicyConfig, config.policy), section(CertifyConfig, config.certify))


def _named(stage: str, build: Callable[[], T]) -> T:
  """An error names its key; only here is it known whose key it is."""
  try:
    return build()
  except ValueError as error:
    raise ValueError(f'{stage}.{error}') from error


# What lies in a run folder, and the sections of the config that it was made with.
_TEXT = ('seed', 'market', 'tokenizer', 'backbone')
SETTLED = {'tokenizer.json': _TEXT,
           'checkpoints/warm_up': (*_TEXT, 'lora', 'model', 'lists', 'experts', 'warm_up'),
           'checkpoints/cooperative': ('cooperative',), 'checkpoints/policy': ('policy',)}
FREE = ('taus', 'grid', 'held_out')  # keys of `policy` that ask the same one for something else


class Run:
  """A run folder and the names of what lies in it."""

  def __init__(self, folder: str | Path):
    self.folder = Path(folder)

  def __truediv__(self, name: str) -> Path:
    return self.folder / name

  def start(self, config: ConfigDict, script: str) -> None:
    """Makes the folder, and writes the config there.

    Raises:
      ValueError: something that lies there was made with another config.
    """
    self._check_settled(json.loads(config.to_json()))
    self.folder.mkdir(parents=True, exist_ok=True)
    write_text(self / 'config.json', config.to_json(indent=2) + '\n')
    logging.set_verbosity(logging.INFO)
    # Orbax and JAX report their every move on the same channel; warnings still come through.
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno >= WARNING or 'site-packages' not in
        record.pathname)
    logging.info('%s: %s, %d devices (%s)', script, self.folder, jax.device_count(),
                 jax.default_backend())

  def _check_settled(self, now: dict[str, Any]) -> None:
    if not (self / 'config.json').exists():
      return
    before = self.read_json('config.json', '')

    def settings(of: dict[str, Any], section: str) -> dict[str, Any]:
      found = of.get(section)
      return {f'{section}.{k}': v for k, v in found.items()
              if section != 'policy' or k not in FREE} if isinstance(found, dict) else {
                  section: found}
    for name, sections in SETTLED.items():
      made = self / name
      if not (made.is_file() or any(x.name.isdigit() for x in made.glob('*'))):
        continue
      for section in sections:
        was, is_ = settings(before, section), settings(now, section)
        for key in sorted({*was, *is_}):
          if was.get(key) != is_.get(key):
            raise ValueError(f'{made} was made with {key}={was.get(key)!r}, this run has '
                             f'{is_.get(key)!r}; use another --workdir or the settings of the '
                             'first run')

  def read_json(self, name: str, made_by: str) -> Any:
    path = self / name
    if not path.is_file():
      raise ValueError(f'{path}: not there; run {made_by} with --workdir={self.folder} first')
    return json.loads(path.read_text())


def use_compilation_cache() -> None:
  """Compiled programs outlive the process: in the user's cache, or where JAX was told to."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(Path.home() / '.cache/jobrec_jax/jit'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def split_shares(config: ConfigDict) -> dict[str, Any]:
  """How a simulated market is divided; the keywords of `make_market`."""
  d = config.data
  return {'shares': tuple(d.shares), 'cold_jobs': d.cold_jobs, 'warm_test': d.warm_test}


def read_data(config: ConfigDict, market: MarketConfig) -> tuple[Dataset, Truth | None]:
  """Simulates or reads what `data.source` names, as it lies, and its truth where it is known."""
  d = config.data
  schema = load_domain(market.domain).schema
  match d.source:
    case 'simulated':
      return simulate(market, config.seed, **split_shares(config))
    case 'jobrec_synth':
      # Here, for tensorflow-datasets takes a second to import.
      from jobrec_jax.data.market.jobrec_synth.reader import read_synth, read_synth_truth
      return read_synth(d.folder, d.size), read_synth_truth(d.folder, d.size)
    case 'jsonl':
      return read_jsonl(d.folder, schema), None
    case 'recbole':
      return read_atomic(d.folder, d.prefix, schema), None
  return read_published(d.folder, config.seed, schema=schema,
                        allow_unknown_users=d.allow_unknown_users), None


def load_data(config: ConfigDict, market: MarketConfig) -> tuple[Dataset, Truth | None]:
  """`read_data`, and an audit of what it gives.

  Raises:
    ValueError: the audit finds an error that data.known_faults does not name.
  """
  d = config.data
  dataset, truth = read_data(config, market)
  if d.drop_shared_negatives:
    dataset = deal_shared_negatives(dataset, config.seed)
  for note in dataset.notes:
    logging.info('data: %s', note)
  report = audit(dataset, config.seed)
  failed = report.failed(d.known_faults)
  if failed:
    raise ValueError(f'the audit found {len(failed)} errors:\n{report.table(d.known_faults)}\n'
                     f'Mend the data, or name what is known in data.known_faults: {failed}')
  log = dataset.interactions
  logging.info('data: %d candidates, %d jobs, %d interactions; the audit found no error',
               len(dataset.candidates), len(dataset.jobs), len(log))
  return dataset, truth
