"""One loop for every stage that reads batches: progress, metrics, checkpoints, resumption."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp

from jobrec_jax import processes
from jobrec_jax.schema.files import decode_json
from jobrec_jax.schema.progress import TimeLeft
from jobrec_jax.sharding import layout, on_mesh, shard_batch
from jobrec_jax.train.checkpoint import Checkpoints, NotFiniteError
from jobrec_jax.train.decisions import Decisions
from jobrec_jax.train.signals import deferred_signals
from jobrec_jax.train.speed import PREFIX, Speedometer, matrix_flops
from jobrec_jax.train.state import Best, MeasureFn, TrainState, copied, stepping
from jobrec_jax.train.watch import UNWATCHED, Watch

PyTree = Any
TIMED = 3  # steps behind the one that compiles, before the time left is told
# A stage measures its held-out loss so many times, but not after fewer steps than the second.
MEASURED, APART = 12, 20
HELD_OUT = 'validation/loss'  # what decides
SLACK = 0.02  # of the lowest: so much more is the noise of few lists, and no reason to go back


class DivergenceError(ValueError):
  """A loss, a gradient or a state is not finite."""


class MetricsWriter:
  """Appends one JSON object a line to metrics.jsonl.

  A process that dies while it writes, or a full disk, can cut the last line: `read` skips it with a
  warning, and the next write takes its place.
  """

  def __init__(self, path: Path):
    self._path = Path(path)

  def write(self, **row: Any) -> None:
    """Appends a row.

    Raises:
      ValueError: a value is not finite, or the file cannot be written.
    """
    for name, value in row.items():
      if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{self._path}: {name} must be finite, got {value}')
    line = json.dumps(row, allow_nan=False).encode() + b'\n'
    try:
      file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
      try:
        line = self._mend(file) + line
        if os.write(file, line) < len(line):  # The next try names the reason.
          raise OSError(0, 'part of a line was written')
      finally:
        os.close(file)
    except OSError as error:
      raise ValueError(f'{self._path}: must be a file with space to write, got '
                       f'{error.strerror}; the same command resumes once it is') from error

  def read(self) -> list[dict]:
    """All rows; of a step that a resumed run did again, the last.

    Raises:
      ValueError: with file and line, where a line is no JSON object with 'stage' and 'step'.
    """
    if not self._path.exists():
      return []
    *lines, last = self._path.read_bytes().split(b'\n')
    rows = []
    for number, line in enumerate(lines, 1):
      try:
        rows.append(_row(line))
      except ValueError as error:
        raise ValueError(f"{self._path}:{number}: must be a JSON object with 'stage' and 'step', "
                         f'got {line[:80]!r} ({error}); remove this line') from error
    if last:
      try:
        rows.append(_row(last))
      except ValueError:
        logging.warning('%s:%d: the last line is cut; left out', self._path, len(lines) + 1)
    return list({(r['stage'], r.get('tau'), r['step']): r for r in rows}.values())

  def _mend(self, file: int) -> bytes:
    """Removes a cut last line; returns what the next row must begin with."""
    size = os.fstat(file).st_size
    if not size or os.pread(file, 1, size - 1) == b'\n':
      return b''
    content = self._path.read_bytes()
    end = content.rfind(b'\n') + 1
    try:
      _row(content[end:])
    except ValueError:
      logging.warning('%s: the last line is cut; removed', self._path)
      os.ftruncate(file, end)
      return b''
    return b'\n'  # The line is whole but for its end.


def _row(line: bytes) -> dict:
  row = decode_json(line.decode())
  if not isinstance(row, dict) or not {'stage', 'step'} <= row.keys():
    raise ValueError('no such object')
  return row


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """The loss of lists that no step learns from, and when training stops by it.

  The newest parameters whose loss is the lowest, or above it by `SLACK` at most, are kept in the
  state, so that a stage that was killed and went on keeps the same ones.

  Attributes:
    measure: (trainable, frozen, batch) -> flat metrics, `HELD_OUT` among them; compiled here.
    batches: of the host, each as large as one of training; the mean over them counts.
    patience: measurements in a row whose parameters are not kept that end the stage, at least 1.
  """

  measure: MeasureFn
  batches: Sequence[PyTree]
  patience: int


@dataclasses.dataclass(frozen=True)
class Loop:
  """A stage's length, and what it leaves on disk.

  Attributes:
    stage: its name in logs and metrics.
    steps: updates in all.
    checkpoints: the stage's; the last step is always saved. The caller closes them.
    metrics: where metrics go on log steps.
    log_every: steps between two logs; only then, and for a checkpoint, do scalars leave the device.
    save_seconds: a killed process loses at most this much; an interrupted one loses nothing.
    tokens: batch of the host -> tokens of the step, padding left out; None where nobody counts
      them.
    watch: where metrics go too, and whether a trace is made.
    held_out: what ends the stage before its last step; None where nothing does.
    lists: in each part of a batch, all processes together, where the data are the `own_rows` of
      this one; None where they are whole.
    began: when the first attempt at the stage did, in seconds since 1970; None for now.
  """

  stage: str
  steps: int
  checkpoints: Checkpoints
  metrics: MetricsWriter
  log_every: int = 20
  save_seconds: float = 30.0
  tokens: Callable[[PyTree], float] | None = None
  watch: Watch = UNWATCHED
  held_out: HeldOut | None = None
  lists: tuple[int, ...] | None = None
  began: float | None = None

  @property
  def every(self) -> int:
    """Steps between two measurements of the held-out loss."""
    return max(APART, -(-self.steps // MEASURED))

  def measures(self, step: int) -> bool:
    """Whether the held-out loss is measured after so many updates."""
    return self.held_out is not None and (step % self.every == 0 or step == self.steps)

  def is_over(self, step: int, best: int | None) -> bool:
    """Whether a stage ends after so many updates.

    Args:
      step: updates done.
      best: those of the parameters that are kept; None while there are none.
    """
    if step >= self.steps or self.held_out is None or best is None:
      return step >= self.steps
    return step - best >= self.held_out.patience * self.every


def train(loop: Loop, update: Callable[[TrainState, PyTree, jax.Array], tuple[TrainState, dict]],
          state: TrainState, data: Callable[[int], Iterator[PyTree]], key: jax.Array,
          mesh: jax.sharding.Mesh) -> TrainState:
  """Runs a stage to its end, from its newest whole checkpoint if there is one.

  It ends with its last step, or where the held-out loss has not fallen for `patience` measurements.
  A checkpoint leaves frozen parameters out: they are what they were, from the seed or their source.
  After SIGINT or SIGTERM the current step is finished and saved; a second signal raises at once.
  Of several processes all call this, and one that a signal reached stops all after the same step.

  Args:
    loop: the stage's length, logs and checkpoints.
    update: (state, batch, key) -> (state, flat metrics); compiled here, see `stepping`.
    state: the initial state, of which only `frozen` can be read afterwards; also the layout that a
      checkpoint is restored to.
    data: updates done -> an iterator over the host batches that follow.
    key: the root key of the stage.
    mesh: the mesh that batches are laid out on.

  Returns:
    The state after the last step; it is on disk. `kept` is what the stage hands on.

  Raises:
    DivergenceError: a metric or the state is not finite; no checkpoint holds such a state.
    Interrupted: a signal came; the state after the current step is on disk.
    ValueError: the data end early, no checkpoint is whole, or the disk is full.
  """
  if loop.held_out is not None:
    nothing = Best(jnp.zeros(()), jnp.int32(-1), copied(state.trainable))
    state = state.replace(best=nothing)
  state = _resume(loop, on_mesh(state, mesh))  # Restored arrays take the layout of these.
  first = step = int(state.step)
  best = _best(state)
  if loop.is_over(step, best):
    return state
  loop.watch.again(loop.metrics.read, done=first)
  step_fn, measure = stepping(update), _measuring(loop, mesh, state.frozen)
  state, frozen = state.replace(frozen=()), state.frozen
  batches, speed, left = data(step), None, TimeLeft(loop.steps, TIMED)
  done = False
  with deferred_signals() as received, layout(mesh), loop.watch.tracing() as trace:
    decisions = Decisions(loop.save_seconds, received)
    if not step and loop.measures(step):  # what the stage starts from may be the best that it finds
      state, row = measure(state, step)
      best = _best(state)
      logging.info('%s: at its start validation %.4f', loop.stage, row[HELD_OUT])
    logging.info('%s: compiling step %d of %d', loop.stage, step + 1, loop.steps)
    while not done:
      with processes.making_batch():
        on_host = _next_batch(loop, batches, step)
        batch = shard_batch(on_host, mesh, loop.lists)
      if speed is None:
        traced = step_fn.trace(state, frozen, batch, key)
        speed = Speedometer(matrix_flops(traced.jaxpr.jaxpr), *_spent(loop, first))
        _compile_together(traced)
      if trace.before(step - first, state):
        left = TimeLeft(loop.steps, TIMED)
        speed.look(step, None)  # neither counts the time that writing the trace took
      with jax.profiler.StepTraceAnnotation('train', step_num=step + 1):
        state, scalars = step_fn(state, frozen, batch, key)
      step += 1
      log = (step % loop.log_every == 0 or step in (first + 1, loop.steps) or loop.measures(step))
      if log:  # No row, and no checkpoint, holds what is not finite.
        tokens = loop.tokens(on_host) if loop.tokens else None
        row = _finite_row(loop, step, scalars) | speed.look(step, tokens)
      if loop.measures(step):
        state, held_out = measure(state, step)
        row, best = row | held_out, _best(state)
        speed.look(step, None)  # which does not count the time that this took
      save = decisions.save_after(step)
      done = decisions.stops() or loop.is_over(step, best)
      save = save or done
      if log:
        _log(loop, step, row, left(step))
      elif save:
        _finite_row(loop, step, scalars)
      if save:
        _save(loop, step, state)
        decisions.saved()
    loop.checkpoints.wait()
    processes.meet()  # nobody goes on, or ends the job, before all of it is on disk
    _tell_end(loop, step, state, decisions.stops())
  return state.replace(frozen=frozen)


def _spent(loop: Loop, done: int) -> tuple[float | None, float]:
  """When the stage began, and the seconds of those of its first `done` steps that were measured."""
  rows = loop.metrics.read() if processes.is_first() else []
  own = sorted((r for r in rows if r['stage'] == loop.stage and r['step'] <= done),
               key=lambda row: row['step'])
  return loop.began, sum((row['step'] - before['step']) * row.get(f'{PREFIX}step_seconds', 0.0)
                         for before, row in itertools.pairwise(own))


def _compile_together(traced: jax.stages.Traced) -> None:
  """Among several processes compiles a program in all of them before one runs it.

  Whoever runs it waits for the others, but the first time Gloo gives up after half a minute. A call
  of the jitted function then finds the program compiled.
  """
  if processes.several():
    traced.lower().compile()
    processes.meet()


def _best(state: TrainState) -> int | None:
  """The updates behind the parameters that are kept; None for none."""
  return int(state.best.step) if state.best and int(state.best.step) >= 0 else None


def _measuring(loop: Loop, mesh: jax.sharding.Mesh, frozen: PyTree) -> Callable[
    [TrainState, int], tuple[TrainState, dict[str, float]]]:
  """Measures the held-out loss, and keeps the parameters in the state; see `HeldOut`."""
  if loop.held_out is None:
    return lambda state, step: (state, {})
  program = jax.jit(loop.held_out.measure)
  batches = [shard_batch(batch, mesh) for batch in loop.held_out.batches]
  compiled = False

  def measure(state: TrainState, step: int) -> tuple[TrainState, dict[str, float]]:
    nonlocal compiled
    if not compiled and processes.several():
      _compile_together(program.trace(state.trainable, frozen, batches[0]))
    compiled = True
    found = [jax.device_get(program(state.trainable, frozen, batch)) for batch in batches]
    row = _finite_row(loop, step, {k: sum(f[k] for f in found) / len(found) for k in found[0]})
    row = processes.told(lambda: row)  # it decides
    lowest = math.inf if _best(state) is None else float(state.best.lowest)
    if row[HELD_OUT] <= lowest * (1 + SLACK):
      best = Best(jnp.float32(min(lowest, row[HELD_OUT])), jnp.int32(step), copied(state.trainable))
      state = state.replace(best=on_mesh(best, mesh))
    return state, row

  return measure


def _tell_end(loop: Loop, step: int, state: TrainState, interrupted: bool) -> None:
  if interrupted:
    logging.info('%s: interrupted; saved at step %d of %d', loop.stage, step, loop.steps)
  elif _best(state) is not None:
    logging.info('%s: the parameters of step %d are kept; the lowest validation loss of %d steps '
                 'is %.4f%s', loop.stage, _best(state), step, float(state.best.lowest),
                 '' if step == loop.steps else f'; stopped before step {loop.steps}')


def _resume(loop: Loop, state: TrainState) -> TrainState:
  restored = loop.checkpoints.restore(state.replace(frozen=()))
  if restored is None:
    return state
  logging.info('%s: resumed at step %d of %d', loop.stage, int(restored.step), loop.steps)
  return restored.replace(frozen=state.frozen)


def _next_batch(loop: Loop, batches: Iterator[PyTree], step: int) -> PyTree:
  batch = next(batches, None)
  if batch is None:
    raise ValueError(f'{loop.stage}: data must last for {loop.steps} steps, ended after {step}')
  return batch


def _log(loop: Loop, step: int, row: dict[str, float], left: str) -> None:
  """Logs a step with the time left, and writes its row."""
  held_out = f', validation {row[HELD_OUT]:.4f}' if HELD_OUT in row else ''
  logging.info('%s: step %d/%d, loss %.4f%s%s', loop.stage, step, loop.steps, row['train/loss'],
               held_out, left)
  if processes.is_first():
    loop.metrics.write(stage=loop.stage, step=step, **row)
    loop.watch.write(step, row)


def _save(loop: Loop, step: int, state: TrainState) -> None:
  try:
    loop.checkpoints.save(step, state)
  except NotFiniteError as error:
    raise _diverged(loop, step, str(error)) from None


def _finite_row(loop: Loop, step: int, scalars: dict[str, jax.Array]) -> dict[str, float]:
  row = {name: float(value) for name, value in jax.device_get(scalars).items()}
  for name, value in row.items():
    if not math.isfinite(value):
      raise _diverged(loop, step, f'{name} is {value}')
  return row


def _diverged(loop: Loop, step: int, what: str) -> DivergenceError:
  newest = loop.checkpoints.latest()
  there = 'no checkpoint is on disk' if newest is None else (
      f'the newest checkpoint on disk is of step {newest}')
  return DivergenceError(f'{loop.stage}: values must be finite, but {what} at step {step}; '
                         f'{there}; try a lower learning_rate or a smaller clip')
