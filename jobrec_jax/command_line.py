"""What scripts share: flags become settings, and whatever goes wrong becomes one line and a status.

Exit status: 0; 2 where a setting, a file or the disk is to blame; 130 and 143 after SIGINT and
SIGTERM, when the same command resumes. A fault of our own ends in a traceback.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import errno
import functools
import logging as standard_logging
from pathlib import Path
import sys
import textwrap
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from jobrec_jax.job import Job
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.record import STUDY, read_record
from jobrec_jax.schema.files import expanded
from jobrec_jax.schema.settings import as_mapping, build
from jobrec_jax.schema.words import printable
from jobrec_jax.train.signals import Interrupted, raise_on_signals

if TYPE_CHECKING:  # a script that makes no run must not wait for what training imports
  from jobrec_jax.pipeline.mirror import Mirror
  from jobrec_jax.pipeline.run import Run
  from jobrec_jax.pipeline.settings import Settings

HELP = {'--help', '-help', '-h'}
WIDTH = 100  # of the lines of a help text
OURS = ('__main__', 'configs', 'experiments', 'jobrec_jax')
JOB = ('coordinator', 'processes', 'process', 'heartbeat_seconds')  # flags of several processes
SILENCE = 30.0  # seconds without a line until a study tells of what goes on inside a stage


def define_flags(config: str, workdir: str | None, trains: bool = True) -> None:
  """Defines --config (with --config.key=value overrides), --workdir, --store and --mirror.

  Scripts that train have --watch and --profile, too, and how several processes find each other.
  """
  define_config(config)
  flags.DEFINE_string('workdir', workdir, 'the run folder: everything is read and written there')
  flags.DEFINE_string('store', None, 'where the results of stages are kept, to be shared by runs; '
                      'WORKDIR/store without it')
  flags.DEFINE_string('mirror', None, 'where the results of stages are kept, too, and checkpoints '
                      'of unfinished ones: gs://BUCKET/FOLDER (pip install gcsfs), s3:// (s3fs), '
                      'az:// (adlfs) or file://; what lies there is not made again')
  names = ['workdir', 'store', 'mirror']
  if trains:
    flags.DEFINE_list('watch', [], 'where the course of training goes beside the log: tensorboard '
                      '(in WORKDIR/tensorboard), wandb')
    flags.DEFINE_bool('profile', False, 'leave a trace of a few steps of each training stage in '
                      'WORKDIR/profile')
    flags.DEFINE_string('coordinator', None, 'of several processes that train together: HOST:PORT '
                        'of process 0, or auto under SLURM, Open MPI and on TPUs')
    flags.DEFINE_integer('processes', None, 'their number, where --coordinator is not auto')
    flags.DEFINE_integer('process', None, 'which of them this is, from 0')
    flags.DEFINE_integer('heartbeat_seconds', 30, 'silence after which one counts as dead, and all '
                         'of them end')
    names += ['watch', 'profile', *JOB]
  for name in names:  # so that --help of the script shows them
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def define_config(config: str) -> None:
  """Defines --config, with overrides."""
  with _flags_in_one_line():  # overrides are looked up in the default config at once
    config_flags.DEFINE_config_file('config', config,
                                    'settings; override with --config.key=value')
  flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['config'])


def config_settings() -> 'Settings':
  """The settings of --config and its overrides, where no run has others."""
  from jobrec_jax.pipeline.settings import Settings
  return build(Settings, _config_values())


def start(main: Callable[['Run'], None], config: str = 'configs/base.py',
          workdir: str | None = None, continues: bool = False, devices: bool = True) -> None:
  """Runs `main` on the run that the flags name.

  Args:
    main: given the run, with its settings checked against the machine.
    config: the file of the default settings.
    workdir: the default folder; None where it must be given.
    continues: whether the settings of the run that the folder holds are the default, and `config`
      only where it holds none.
    devices: whether the script computes on devices, which the mesh must then cover. Several
      processes may then run it: `main` runs in the first, the others train with it.
  """
  define_flags(config, workdir, devices)

  def run(argv: Sequence[str]) -> None:
    del argv
    if not devices or not among_several():
      main(open_run(continues, devices))
      return
    from jobrec_jax import processes  # here, for they import JAX
    from jobrec_jax.pipeline.follow import share
    job = Job(*(flags.FLAGS[name].value for name in JOB))
    with processes.joined(job, ending):
      raise_on_signals()  # again, for JAX may have taken them
      share(open_run(continues), main)
  launch(run)


def among_several() -> bool:
  """Whether the flags tell of other processes.

  Raises:
    ValueError: they do not say where the first of them is.
  """
  if flags.FLAGS.coordinator is None and (flags.FLAGS.processes, flags.FLAGS.process) != (
      None, None):
    raise ValueError('--coordinator must be given beside --processes and --process, got none')
  return flags.FLAGS.coordinator is not None


def launch(main: Callable[[Sequence[str]], None], words: Sequence[str] = ()) -> None:
  """Parses the flags that are defined, and runs `main` with the arguments called `words`.

  A last word '...' stands for any number of arguments more. With --help it prints what the script
  does, and ends with status 0.
  """
  if HELP & set(sys.argv[1:]):
    print(help_text())
    return

  def guarded(argv: Sequence[str]) -> None:
    quiet_logs()
    raise_on_signals()
    try:
      main(argv)
    except BaseException as error:
      known = ending(error)
      if known is None:
        raise
      _end(*known)
  app.run(guarded, flags_parser=functools.partial(_parse, words=words))


def help_text() -> str:
  """What the script says of itself, and its flags with their defaults."""
  about = sys.modules['__main__'].__doc__ or ''
  lines = [about.strip(), '', 'Flags:']
  for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
    name = f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}'
    default = '' if flag.default is None else f' (default: {flag.default_as_str})'
    lines += textwrap.wrap(f'{name}: {flag.help}{default}', WIDTH, initial_indent='  ',
                           subsequent_indent='      ', break_on_hyphens=False)
  return '\n'.join(lines)


def open_run(continues: bool, devices: bool = True) -> 'Run':
  """The run that the flags name, nothing of it made yet.

  Raises:
    ValueError: a setting, or --workdir or --store, is wrong.
  """
  from jobrec_jax.pipeline.run import Run
  from jobrec_jax.train.watch import Watching
  folder, store = flags.FLAGS.workdir, flags.FLAGS.store
  for name, value in (('workdir', folder), ('store', store)):
    if value == '' or (name == 'workdir' and value is None):
      raise ValueError(f"--{name} must name a folder, got {value!r}")
  folder, store = (p and expanded(p) for p in (folder, store))  # no shell expands --x=~
  settings = read_settings(folder, continues)
  watching = Watching()
  if devices:
    watching = Watching(tuple(flags.FLAGS.watch), flags.FLAGS.profile)
    use_devices(settings)
  if store is None and (folder / 'run.json').is_file():
    store = folder / read_record(folder)['store']  # where the run's own results lie
  return Run(folder, settings, store, watching, open_mirror())


def open_mirror() -> 'Mirror | None':
  """That of --mirror; raises a ValueError where it cannot be used."""
  if flags.FLAGS.mirror is None:
    return None
  from jobrec_jax.pipeline.mirror import Mirror
  return Mirror(flags.FLAGS.mirror)


def use_devices(settings: 'Settings') -> None:
  """Starts JAX; raises a ValueError where the mesh does not cover the devices."""
  import jax  # here, so that --help and a wrong flag are told at once

  from jobrec_jax.pipeline.settings import check_devices
  check_devices(settings, jax.device_count())
  use_compilation_cache()
  logging.info('%d devices (%s)', jax.device_count(), jax.default_backend())


def read_settings(folder: Path, continues: bool) -> 'Settings':
  """The settings that the flags ask for.

  Without --config, a script that continues a run takes the run's own, overrides on top.
  """
  from jobrec_jax.pipeline.run import settings_of
  from jobrec_jax.pipeline.settings import Settings
  given = any(a.split('=')[0] in ('--config', '-config') for a in sys.argv[1:])
  there = (folder / 'run.json').exists()
  if continues and (folder / STUDY).is_file():
    raise ValueError(f'{folder}: must be a run, got a study; its runs are '
                     f'{folder}/runs/VARIANT/data-D-seed-S')
  if continues and not there:
    logging.warning('%s: holds no run yet; all that is needed is made from the start', folder)
  if not continues or given or not there:
    return config_settings()
  values = as_mapping(settings_of(folder))
  for key, value in config_flags.get_override_values(flags.FLAGS['config']).items():
    *sections, name = key.split('.')
    section = values
    for s in sections:
      section = section[s]
    section[name] = value
  return build(Settings, values)


def _config_values() -> dict[str, Any]:
  """The config of the flags; raises a ValueError where its file cannot be loaded."""
  try:
    return flags.FLAGS.config.to_dict()
  except OSError as error:  # ml_collections tells of a missing file when its content is asked for
    path = config_flags.get_config_filename(flags.FLAGS['config'])
    raise ValueError(f'--config must name a config file that can be read, got {path!r}') from error


def quiet_logs() -> None:
  """Our own progress and every warning; Orbax and JAX report each move on the same channel."""
  handler = logging.get_absl_handler()
  handler.setFormatter(LineFormatter('%(asctime)s %(message)s', '%H:%M:%S'))
  handler.addFilter(lambda record: record.levelno >= standard_logging.WARNING
                    or 'site-packages' not in record.pathname)
  if flags.FLAGS.verbosity < logging.INFO:  # --v=1 asks for more
    logging.set_verbosity(logging.INFO)


class LineFormatter(standard_logging.Formatter):
  """'21:04:05 message', and from warnings on '21:04:05 warning: message'."""

  def format(self, record: standard_logging.LogRecord) -> str:
    told = super().format(record)
    if record.levelno < standard_logging.WARNING:
      return told
    return told.replace(' ', f' {record.levelname.lower()}: ', 1)


def spare_logs(program: str) -> None:
  """Of progress, only what one module tells, and others where it is silent; every warning.

  With --v=1 all is told.

  Args:
    program: the module's `__name__`.
  """
  if flags.FLAGS.verbosity <= logging.INFO:
    logging.get_absl_handler().addFilter(Sparing(program))


class Sparing(standard_logging.Filter):
  """Lets lines of one module pass, warnings, and others after `SILENCE` seconds without a line."""

  def __init__(self, program: str, clock: Callable[[], float] = time.monotonic):
    super().__init__()
    self._program, self._clock = program.split('.')[-1], clock
    self._last = clock()

  def filter(self, record: standard_logging.LogRecord) -> bool:
    told = (record.levelno >= standard_logging.WARNING or record.module == self._program
            or self._clock() - self._last >= SILENCE)
    if told:
      self._last = self._clock()
    return told


def ending(error: BaseException) -> tuple[str, int] | None:
  """The line and the exit status for what a user can mend, or has asked for; None for the rest."""
  if isinstance(error, Interrupted):
    return str(error), error.exit_status
  if isinstance(error, KeyboardInterrupt):
    return 'interrupted; the same command resumes', 130
  if isinstance(error, ValueError) and _is_ours(error):
    return f'error: {error}', 2
  if isinstance(error, OSError) and error.filename is not None:
    return (f'error: {error.filename}: must be a file or folder that can be used, got '
            f'{error.strerror}', 2)
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
    return (f'error: the disk must have space to write, got {error.strerror}; the same command '
            'resumes once it has', 2)
  return None


def _is_ours(error: BaseException) -> bool:
  """Whether our own code raised it, so that its message is meant for people."""
  *_, (frame, _) = traceback.walk_tb(error.__traceback__)
  return frame.f_globals['__name__'].split('.')[0] in OURS


def _end(line: str, status: int) -> NoReturn:
  print(printable(line, keep='\n\t'), file=sys.stderr)
  sys.stderr.flush()
  sys.exit(status)


def _parse(argv: Sequence[str], words: Sequence[str]) -> list[str]:
  with _flags_in_one_line():
    left = flags.FLAGS(list(argv))
  more = bool(words) and words[-1] == '...'
  if len(left) != 1 + len(words) and not (more and len(left) >= len(words)):
    _end(f"error: arguments must be {' '.join(words) or 'flags alone'}, got {left[1:]}; "
         '--help helps', 2)
  return left


@contextlib.contextmanager
def _flags_in_one_line() -> Iterator[None]:
  """What is wrong with a flag, with a config or an override is told in one line."""
  try:
    yield
  except flags.Error as error:
    _end(f'error: {" ".join(str(error).split())}; --help helps', 2)
  except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
    while error.args and isinstance(error.args[0], Exception):  # as ml_collections wraps them
      error = error.args[0]
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    unknown = 'there is no setting ' if text.startswith("'") else ''
    _end(f'error: --config: {unknown}{" ".join(text.split())}', 2)
