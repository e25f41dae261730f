"""The tables of BUILD.md: what the compiler for TPUs says of the presets in configs/pods.py.

  pip install libtpu
  python -m benchmarks.ahead --compile=v5e-16,v5e-256   keeps rows in benchmarks/results/ahead
  python -m benchmarks.ahead --compile=v5e-16-plain     the same step without splash attention
  python -m benchmarks.ahead --attention                one layer's attention over one list
  python -m benchmarks.ahead --search=v5e-16            the most lists that fit its mesh
  python -m benchmarks.ahead                            writes the tables again
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp

from configs.pods import PODS
from jobrec_jax.command_line import launch
from jobrec_jax.models.list_attention import attend
from jobrec_jax.models.list_masks import ListMask
from jobrec_jax.pipeline import compile_search
from jobrec_jax.pipeline.compile_ahead import topology_devices
from jobrec_jax.pipeline.provenance import commit
from jobrec_jax.schema.files import read_json, write_json, write_text
from jobrec_jax.sharding import MeshConfig, abstract_replicated, layout, make_mesh
from jobrec_jax.train.ahead import CHIPS

ROOT = Path(__file__).parents[1]
KEPT, SEARCHED = (ROOT / 'benchmarks/results' / name for name in ('ahead', 'ahead_search'))
LAYER = ROOT / 'benchmarks/results/attention_ahead.json'
PAGE = ROOT / 'BUILD.md'
DECODER = 'configs/decoders/llama3_8b.json'
MARK = re.compile(r'(<!-- PODS -->\n).*?(<!-- end -->)', re.S)
SEARCH_MARK = re.compile(r'(<!-- SEARCH ([\w-]+) -->\n).*?(<!-- end -->)', re.S)
LAYER_MARK = re.compile(r'(<!-- LAYER -->\n).*?(<!-- end -->)', re.S)
PLAIN = '-plain'  # behind a preset: attention over lists by XLA alone
HEAD = ('preset', 'topology', 'mesh', 'attention', 'lists a step', 'arguments (replicated)',
        'temporaries', 'of', 'fits', 'PFLOP a step', 's at peak', 'exchanged', 's over links',
        'compiled in')
GIB = 2**30


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
  """Memory and bytes exchanged in GiB a chip; seconds at the peak of the matrix units."""
  lines = [HEAD, ('---',) * len(HEAD)]
  for name, row in rows.items():
    memory, fits = row['memory'], row['fits']
    exchanged = sum(c['bytes'] for c in row.get('collectives', ()))
    lines.append((
        f'`{name.removesuffix(PLAIN)}`', row['topology'],
        ' × '.join(map(str, row['mesh'].values())), 'splash' if row.get('fused') else 'XLA',
        ' + '.join(map(str, row['lists'])),
        f"{memory['arguments'] / GIB:.2f} ({memory['replicated'] / GIB:.3f})",
        f"{memory['temporaries'] / GIB:.1f}" if fits else '', f"{memory['there'] / GIB:.0f}",
        'yes' if fits else f"no: {row['refused']}", f"{sum(row['flops'].values()) / 1e15:,.0f}",
        f"{row['seconds_at_peak']:.1f}",
        *((f'{exchanged / GIB:.0f}', f"{exchanged / CHIPS[row['device']].links:.1f}")
          if 'collectives' in row else ('', '')),
        f"{row['compile_seconds']:.0f} s"))
  return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


def kept() -> dict[str, Any]:
  """The rows, in the order of the presets."""
  names = [name + end for name in PODS for end in ('', PLAIN)]
  return {name: read_json(KEPT / f'{name}.json') for name in names
          if (KEPT / f'{name}.json').is_file()}


def layer(fused: bool, mesh: jax.sharding.Mesh) -> dict[str, int]:
  """Attention of Llama-3-8B over a list of the presets, and its gradient, on one chip.

  Returns:
    `temporaries`, and `traffic` with the chip's memory, bytes as the compiler counts them.
  """
  S, J, T, K, G, H = 160, 50, 80, 8, 4, 128
  L = S + J * T

  def gradient(q, k, v, prefix, items):
    def total(q, k, v):
      out = attend(q, k, v, ListMask(prefix, (items,), blind=2), fused=fused)
      return jnp.sin(out.astype(jnp.float32)).sum()
    return jax.value_and_grad(total, (0, 1, 2))(q, k, v)
  shapes = [((1, L, K, G, H), jnp.bfloat16), *[((1, K, L, H), jnp.bfloat16)] * 2,
            ((1, S), jnp.bool_), ((1, J, T), jnp.bool_)]
  arguments = [abstract_replicated(jax.ShapeDtypeStruct(*of), mesh) for of in shapes]
  with layout(mesh):
    compiled = jax.jit(gradient).lower(*arguments).compile()
  return {'temporaries': compiled.memory_analysis().temp_size_in_bytes,
          'traffic': int(compiled.cost_analysis()['bytes accessed'])}


def layer_table(rows: Mapping[str, Any]) -> str:
  lines = ['| attention of one layer over one list, with its gradient | temporaries, MiB | memory '
           'traffic, GB |', '|---|---:|---:|']
  return '\n'.join([*lines, *(
      f"| {name} | {rows[key]['temporaries'] / 2**20:.0f} | {rows[key]['traffic'] / 1e9:.2f} |"
      for name, key in (('XLA', 'plain'), ('splash attention', 'fused')))])


def searched(preset: str) -> Path:
  """The rows of a search."""
  return SEARCHED / f'{preset}.json'


def search_table(rows: Sequence[Mapping[str, Any]]) -> str:
  head, *cells = compile_search.table(rows)
  lines = [head, ('---', '---', *['---:'] * (len(head) - 2)), *cells]
  return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


def render(page: str) -> str:
  page = LAYER_MARK.sub(lambda m: f'{m[1]}{layer_table(read_json(LAYER))}\n{m[2]}', page)
  page = SEARCH_MARK.sub(lambda m: f'{m[1]}{search_table(read_json(searched(m[2])))}\n{m[3]}', page)
  return MARK.sub(lambda match: f'{match[1]}{table(kept())}\n{match[2]}', page)


def compiled(preset: str, out: Path, *more: str) -> None:
  """Has a preset compiled, or searched, into a file.

  Raises:
    ValueError: there is no such preset of TPUs.
  """
  if not PODS.get(preset, ('',))[0]:
    raise ValueError('--compile and --search must name presets of TPUs, some of '
                     f'{[k for k, (topology, *_) in PODS.items() if topology]}, --compile also one '
                     f'with {PLAIN} behind it, got {preset!r}')
  out.parent.mkdir(parents=True, exist_ok=True)
  subprocess.run([sys.executable, '-m', 'experiments.compile_ahead',
                  f'--config=configs/pods.py:{preset}', f'--topology={PODS[preset][0]}',
                  f'--decoder={DECODER}', f'--out={out}', *more], cwd=ROOT, check=True)


def main(argv: Sequence[str]) -> None:
  del argv
  for name in flags.FLAGS.compile:
    preset = name.removesuffix(PLAIN)
    compiled(preset, KEPT / f'{name}.json', f'--config.model.fused={preset == name}')
  for preset in flags.FLAGS.search:
    mesh = 'x'.join(map(str, PODS[preset][1])) if preset in PODS else ''
    compiled(preset, searched(preset), '--search', f'--meshes={mesh}')
  if flags.FLAGS.attention:
    mesh = make_mesh(MeshConfig(1, 1, 1), topology_devices('v5e:1x1'))
    write_json(LAYER, {'plain': layer(False, mesh), 'fused': layer(True, mesh),
                       'commit': commit()}, indent=1)
  write_text(PAGE, render(PAGE.read_text()))


if __name__ == '__main__':
  flags.DEFINE_bool('attention', False, "one layer's attention is compiled, too")
  flags.DEFINE_list('compile', [], 'presets that are compiled first')
  flags.DEFINE_list('search', [], 'presets on whose mesh lists are doubled until there is no room')
  launch(main)
