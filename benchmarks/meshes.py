"""One road on several meshes, by one process and by several: do figures and losses stay the same?

  python -m benchmarks.meshes --out=runs/meshes    makes the runs that are not there, and compares
  python -m benchmarks.meshes                      writes the table of RESULTS.md again

The quickstart of a small market with four steps of stages 1A and 1B, dropout on, float32. Devices
are parts of this machine's CPUs. Rows go to benchmarks/results/meshes.json.
"""

from collections.abc import Mapping, Sequence
import os
from pathlib import Path
import platform
import re
from typing import Any, NamedTuple

from absl import flags

from benchmarks.kills import LONGEST, SMALL, compared, ended, started
from jobrec_jax.command_line import launch
from jobrec_jax.pipeline import provenance
from jobrec_jax.schema.files import read_json, write_rows, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks/results/meshes.json'
PAGE = ROOT / 'benchmarks/RESULTS.md'
MARK = re.compile(r'(<!-- MESHES -->\n).*?(<!-- end -->)', re.S)
STEPS = 4
SETTINGS = SMALL | {
    'warm_up.steps': STEPS, 'cooperative.steps': STEPS, 'warm_up.warmup': 1,
    'cooperative.warmup': 1, 'cooperative.qualification_batch': 8,
    'model.heads': 8, 'model.kv_heads': 8, 'model.head_width': 8,
    # Experts that read words alone: of these, validation keeps what four steps taught.
    'tokenizer.verdicts': 'words', 'tokenizer.components': 0}


class Layout(NamedTuple):
  """Processes of so many devices each, and the mesh over all of them."""

  processes: int
  devices: int
  mesh: tuple[int, int, int]

  def name(self) -> str:
    return f"{self.processes}x{self.devices}-{'x'.join(map(str, self.mesh))}"


ALONE = Layout(1, 1, (1, 1, 1))
LAYOUTS = [*(Layout(1, 8, mesh) for mesh in ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2))),
           *(Layout(2, 4, mesh) for mesh in ((8, 1, 1), (1, 1, 8), (2, 2, 2))),
           *(Layout(4, 2, mesh) for mesh in ((8, 1, 1), (1, 1, 8), (2, 2, 2)))]


def made(layout: Layout, out: Path) -> Path:
  """The run of a layout, made where it is not there."""
  folder = out / layout.name()
  if not (folder / 'results.json').is_file():
    mesh = dict(zip(('mesh.data', 'mesh.fsdp', 'mesh.tensor'), layout.mesh))
    job = started(folder, out / 'logs' / layout.name(), layout.processes, layout.devices,
                  SETTINGS | mesh)
    if ended(job, 3 * LONGEST) is None or any(p.popen.returncode for p in job):
      raise ValueError(f'{folder}: must end well, got the words in {job[0].log}')
  return folder


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  head = ('processes × devices', 'data × fsdp × tensor', 'losses within', 'figures within',
          'same rows')
  lines = [head, ('---',) * len(head)]
  for row in rows:
    lines.append((f"{row['processes']} × {row['devices']}", ' × '.join(map(str, row['mesh'])),
                  f"{row['greatest_of_losses']:.0e}", f"{row['greatest_difference']:.0e}",
                  'yes' if row['same_rows'] and row['same_steps'] else 'no'))
  return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


def render(page: str, rows: Sequence[Mapping[str, Any]]) -> str:
  return MARK.sub(lambda match: f'{match[1]}{table(rows)}\n{match[2]}', page)


def main(argv: Sequence[str]) -> None:
  del argv
  if flags.FLAGS.out:
    out = Path(flags.FLAGS.out).absolute()
    about = {'commit': provenance.commit(), 'machine': platform.machine(), 'cores': os.cpu_count(),
             'python': platform.python_version(), **provenance.versions()}
    rows, reference = [], made(ALONE, out)
    for layout in LAYOUTS:
      rows.append({**layout._asdict(), **compared(made(layout, out), reference), **about})
      print({k: v for k, v in rows[-1].items() if k not in about}, flush=True)
    write_rows(RESULTS, rows)
  write_text(PAGE, render(PAGE.read_text(), read_json(RESULTS)))


if __name__ == '__main__':
  flags.DEFINE_string('out', '', 'folder for runs and logs; empty: nothing is run')
  launch(main)
