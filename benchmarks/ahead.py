"""The table of BUILD.md: what the compiler for TPUs says of the presets in configs/pods.py.

  pip install libtpu
  python -m benchmarks.ahead --compile=v5e-16,v5e-256   keeps rows in benchmarks/results/ahead
  python -m benchmarks.ahead --compile=v5e-16-plain     the same step without splash attention
  python -m benchmarks.ahead                            writes the table again
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

from absl import flags

from configs.pods import PODS
from jobrec_jax.command_line import launch
from jobrec_jax.schema.files import read_json, write_text

ROOT = Path(__file__).parents[1]
KEPT = ROOT / 'benchmarks/results/ahead'
PAGE = ROOT / 'BUILD.md'
DECODER = 'configs/decoders/llama3_8b.json'
MARK = re.compile(r'(<!-- PODS -->\n).*?(<!-- end -->)', re.S)
PLAIN = '-plain'  # behind a preset: attention over lists by XLA alone
HEAD = ('preset', 'topology', 'mesh', 'attention', 'lists a step', 'arguments (replicated)',
        'temporaries', 'of', 'fits', 'PFLOP a step', 's at peak', 'exchanged', 'compiled in')
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
        f"{row['seconds_at_peak']:.1f}", f'{exchanged / GIB:.0f}' if 'collectives' in row else '',
        f"{row['compile_seconds']:.0f} s"))
  return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


def kept() -> dict[str, Any]:
  """The rows, in the order of the presets."""
  names = [name + end for name in PODS for end in ('', PLAIN)]
  return {name: read_json(KEPT / f'{name}.json') for name in names
          if (KEPT / f'{name}.json').is_file()}


def render(page: str) -> str:
  return MARK.sub(lambda match: f'{match[1]}{table(kept())}\n{match[2]}', page)


def main(argv: Sequence[str]) -> None:
  del argv
  for name in flags.FLAGS.compile:
    preset = name.removesuffix(PLAIN)
    if not PODS.get(preset, ('',))[0]:
      raise ValueError('--compile must name presets of TPUs, some of '
                       f'{[k for k, (topology, *_) in PODS.items() if topology]}, or one with '
                       f'{PLAIN} behind it, got {name!r}')
    KEPT.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, '-m', 'experiments.compile_ahead',
                    f'--config=configs/pods.py:{preset}', f'--topology={PODS[preset][0]}',
                    f'--config.model.fused={preset == name}', f'--decoder={DECODER}',
                    f'--out={KEPT}/{name}.json'], cwd=ROOT, check=True)
  write_text(PAGE, render(PAGE.read_text()))


if __name__ == '__main__':
  flags.DEFINE_list('compile', [], 'presets that are compiled first')
  launch(main)
