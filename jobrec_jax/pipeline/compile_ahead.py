"""Stage 1B's step as settings ask for it, compiled for a TPU topology that is not here."""

from collections.abc import Callable, Iterator
import contextlib
from importlib.metadata import distributions
import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.pipeline.experts import kinds_of
from jobrec_jax.pipeline.model import ModelSpec, model_of, own_decoder
from jobrec_jax.pipeline.provenance import commit
from jobrec_jax.pipeline.settings import Settings, check_devices, schema_of
from jobrec_jax.pipeline.tokenizer import count_numbers
from jobrec_jax.schema.files import read_object
from jobrec_jax.sharding import abstract_batch, make_mesh
from jobrec_jax.train.ahead import abstract_state, compile_step
from jobrec_jax.train.experts import Kind, cooperative_loss
from jobrec_jax.train.state import TrainState, make_optimizer, make_update

PyTree = Any
# A name asks for one chip to a pod; these were tried.
TOPOLOGIES = ('v5e:1x1', 'v5e:2x2', 'v5e:2x4', 'v5e:4x4', 'v5e:4x8', 'v5e:8x8', 'v5e:8x16',
              'v5e:16x16', 'v5p:2x2x1', 'v5p:2x2x2', 'v5p:2x2x4', 'v5p:2x4x4', 'v5p:4x4x4',
              'v5p:4x4x8', 'v5p:4x8x8', 'v6e:1x1', 'v6e:2x2', 'v6e:2x4', 'v6e:4x4', 'v6e:4x8',
              'v6e:8x8', 'v6e:8x16', 'v6e:16x16')
GIB = 2**30


def topology_devices(name: str) -> list[jax.Device]:
  """The devices of a TPU topology: none is here, but the compiler knows them.

  From then on this process computes on CPUs alone, and reads no XLA_FLAGS.

  Raises:
    ValueError: libtpu is not installed, or the topology is not among `TOPOLOGIES`.
  """
  if name not in TOPOLOGIES:
    raise ValueError(f'--topology must be one of {", ".join(TOPOLOGIES)}, got {name!r}')
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError('libtpu, the compiler for TPUs, must be installed (Linux, 140 MB; it needs no '
                     'TPU), got none: pip install libtpu')
  jax.config.update('jax_platforms', 'cpu')  # nothing looks for a TPU of this machine
  # It asks no host of a TPU what it is, and several may compile at a time. It ends a process whose
  # XLA_FLAGS name one of jaxlib's that it does not know; its own stand in LIBTPU_INIT_ARGS.
  os.environ.pop('XLA_FLAGS', None)
  for variable in ('TPU_SKIP_MDS_QUERY', 'ALLOW_MULTIPLE_LIBTPU_LOAD'):
    os.environ.setdefault(variable, '1')
  from jax.experimental import topologies  # here, for only this asks for them
  with _silent():
    return list(topologies.get_topology_desc(platform='tpu', topology_name=name).devices)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """libtpu tells at its start, on the process's own stderr, that this machine is no TPU's host."""
  kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


class Step(NamedTuple):
  """Stage 1B's step, and abstract arrays for it that say where they lie."""

  update: Callable
  state: TrainState
  batch: PyTree


def decoder_of(settings: Settings, spec: ModelSpec, file: Path | None) -> DecoderConfig:
  """The decoder's sizes: those of a config.json for a pretrained one, else those of `model`.

  Raises:
    ValueError: the settings have a backbone and no file is given, or the other way round; or it is
      kept in a type that this does not compile.
  """
  if spec.pretrained != (file is not None):
    raise ValueError('--decoder must name a config.json where backbone.path names a decoder, and '
                     f'nothing else, got {str(file or "")!r} with {settings.backbone.path!r}')
  if file is None:
    return own_decoder(spec, settings.tokenizer.vocab_size)
  if spec.dtype not in ('bfloat16', 'float32'):
    raise ValueError("backbone.dtype must be 'bfloat16' or 'float32' to be compiled ahead, got "
                     f'{spec.dtype!r}')
  from jobrec_jax.weights.families import decoder_config  # here, as in `model.open_backbone`
  m = settings.model
  return decoder_config(read_object(file), m.dtype, unroll=m.unroll, remat=m.remat, fused=m.fused,
                        lora=spec.lora)


def make_step(settings: Settings, file: Path | None, mesh: jax.sharding.Mesh) -> Step:
  """The step of both experts as `pipeline.experts` makes it, without data and weights.

  Raises:
    ValueError: a length of a block is left to the texts, which are not here, or experts read what
      a writer would have to write.
  """
  s, t = settings, settings.tokenizer
  for side in ('candidate', 'job', 'alignment'):
    if not getattr(t, side) and not (side == 'alignment' and not t.form.alignment):
      raise ValueError(f'tokenizer.{side} must be a length, for no text is read, got 0')
  if s.experts.chain:
    raise ValueError(f'experts.chain must be 0, for nothing is written here, got {s.experts.chain}')
  spec = ModelSpec(t, s.model, s.lora, s.backbone.dtype, bool(s.backbone.path),
                   count_numbers(t, schema_of(s)), t.components)
  decoder = decoder_of(s, spec, file)
  model = model_of(spec, decoder, decoder.vocab_size, t.phrases)
  stage, across = s.cooperative, s.lists.across
  kinds = kinds_of({'preference': (stage.batch, across),
                    'qualification': (stage.qualification_batch, across)})
  weighting = task_weights(s.experts.task_weights, 2, s.experts.fixed_weights)
  doubt = 0.0 if s.experts.self_censoring == 'none' else 0.3  # whatever the data will say
  loss = cooperative_loss(model, [*kinds], weighting, s.experts.beta, doubt)
  tx = make_optimizer(stage)

  def init() -> PyTree:
    blocks = [jnp.zeros(shape, jnp.int32) for shape in (
        (1, t.candidate), (1, 1, t.job), (1, 1, t.form.alignment))]
    numbers = jnp.zeros((1, 1, spec.numbers)) if spec.numbers else None
    return {'model': model.init(jax.random.key(0), *blocks, numbers)['params'],
            'task_weights': weighting.init()}
  state = abstract_state(init, lambda path: spec.pretrained and 'decoder' in path, spec.dtype, tx,
                         bool(stage.patience), mesh)
  batch = tuple(lists_of(s, spec, kind, count) for kind, count in kinds.items())
  return Step(make_update(loss, tx), state, abstract_batch(batch, mesh))


def lists_of(settings: Settings, spec: ModelSpec, kind: Kind,
             count: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of so many lists of a kind, as `data.loader.finisher` makes them."""
  t, B = settings.tokenizer, count
  J = 1 + getattr(settings.lists, f'{kind.perspective}_negatives')
  alone = settings.model.attention == 'factored'
  sizes = {'candidate': (B, t.candidate) if kind.centre == 'candidate' else (B, J, t.candidate),
           'job': (B, t.job) if kind.centre == 'job' and alone else (B, J, t.job),
           'alignment': (B, J, t.form.alignment)}
  shape = jax.ShapeDtypeStruct
  numbers = {'numbers': shape((B, J, spec.numbers), jnp.float32)} if spec.numbers else {}
  return {name: shape(size, jnp.int32) for name, size in sizes.items()} | numbers | {
      'mask': shape((B, J), jnp.bool_), 'weight': shape((B, J), jnp.float32),
      'label': shape((B,), jnp.bool_)}


def compile_ahead(settings: Settings, topology: str, file: Path | None = None) -> dict[str, Any]:
  """Compiles stage 1B's step for a topology.

  Args:
    settings: of the run.
    topology: one of `TOPOLOGIES`.
    file: the config.json of the pretrained decoder, where the settings have one.

  Returns:
    What `train.ahead.compile_step` tells, with `topology`, `commit` and `versions`, and of the
    settings `lists` (of each kind in a step), `tokens` (of their blocks, padding among them) and
    `remat` and `fused`.

  Raises:
    ValueError: something is not known, or the mesh or the lists do not fit the topology.
  """
  devices = topology_devices(topology)
  check_devices(settings, len(devices))
  mesh = make_mesh(settings.mesh, devices)
  step = make_step(settings, file, mesh)
  about = {'topology': topology, 'remat': settings.model.remat,
           'fused': settings.model.fused, 'commit': commit(),
           'versions': versions(),
           'lists': [part['label'].shape[0] for part in step.batch],
           'tokens': sum(part[block].size for part in step.batch
                         for block in ('candidate', 'job', 'alignment'))}
  return about | compile_step(step.update, step.state, step.batch, mesh)


def versions() -> dict[str, str]:
  """Of what compiles."""
  return {d.name: d.version for d in distributions() if d.name in ('jax', 'jaxlib', 'libtpu')}


def in_words(row: dict[str, Any]) -> str:
  """What `compile_ahead` found, as a table for people."""
  memory = row['memory']
  lines = [f"{row['topology']}: {row['chips']} x {row['device']}, mesh "
           + ' x '.join(f'{name} {size}' for name, size in row['mesh'].items())
           + f", {' + '.join(map(str, row['lists']))} lists a step, remat {row['remat']}", '',
           f"{'GiB a chip':<34}{'all':>8}{'of it replicated':>20}"]
  for name, (size, whole) in row['parts'].items():
    lines.append(f'  {name:<32}{size / GIB:8.3f}{whole / GIB:20.4f}')
  whole = memory['replicated'] / GIB
  lines.append(f"{'arguments':<34}{memory['arguments'] / GIB:8.3f}{whole:20.4f}")
  lines += [f'{name:<34}{memory[key] / GIB:8.3f}' for name, key in (
      ('outputs, beside donated arguments', 'outputs'), ('temporaries', 'temporaries'),
      ('in all', 'total'), ('there are', 'there')) if key in memory]
  lines += ['', ('It fits: the compiler found room.' if row['fits'] else
                 f"It does not fit: {row['refused']}")]
  total = sum(row['flops'].values())
  lines.append(f"Matrix products: {total / 1e12:,.1f} TFLOP a step, "
               f"{total / row['chips'] / 1e12:,.2f} a chip, {row['seconds_at_peak']:.3f} s at its "
               'bfloat16 peak')
  if 'unread' in row:
    lines += ['', "The program cannot be read back, so that its collectives are not known: "
              + row['unread']]
  elif row['fits']:
    lines += ['', f"{'collectives':<34}{'how many':>8}{'GiB a chip and step':>22}"]
    lines += [f"  {c['kind'] + (', in loops' if c['in_loop'] else ''):<32}{c['count']:8d}"
              f"{c['bytes'] / GIB:22.3f}" for c in row['collectives']]
    lines += [f"They take at least {row['seconds_exchanging']:.3f} s over all links of a chip",
              'A kernel of all layers is put together on a chip: '
              + ('yes' if row['gathers_all_layers'] else 'no')]
  return '\n'.join([*lines, f"Traced in {row['trace_seconds']} s, compiled in "
                            f"{row['compile_seconds']} s"])
