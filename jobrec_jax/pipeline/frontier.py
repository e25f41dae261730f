"""The policy beside separately trained heads and the exact dual, for people: table and figure."""

import numpy as np

from jobrec_jax.pipeline.road import sweep_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import PolicySettings
from jobrec_jax.pipeline.sweep import EXACT, Frontier
from jobrec_jax.report import figures
from jobrec_jax.schema.files import null_for_nan, write_json, write_text


def table(p: PolicySettings, found: Frontier) -> str:
  """Markdown: every point, then each system's share of the exact dual's hypervolume."""
  lines = [f'Objective: {p.objective}. Regret is the loss of J against the exact dual at the '
           'same C, as a share of what the range of requirements costs.', '',
           '| lists | system | τ | C | J | regret | InfoNCE |',
           '|---|---|---:|---:|---:|---:|---:|']
  lines += [f'| {name} | {r.system} | {r.tau:.4f} | {r.reached:.4f} | {r.value:.4f} | '
            f'{dashed(r.regret, ".2%")} | {dashed(r.info_nce, ".4f")} |'
            for name, rows in found.points.items() for r in rows]
  lines += ['', '| lists | system | hypervolume of (J, C) | of the exact dual\'s |',
            '|---|---|---:|---:|']
  lines += [f'| {name} | {system} | {dashed(v, ".4f")} | '
            f'{dashed(share(v, volumes.get(EXACT)), ".1%")} |'
            for name, volumes in found.volumes.items() for system, v in volumes.items()]
  return '\n'.join(lines) + '\n'


def share(volume: float, exact: float | None) -> float:
  """nan where the exact dual can meet no requirement on these lists, so that it has no volume."""
  return volume / exact if exact else np.nan


def dashed(value: float, form: str) -> str:
  return format(value, form) if np.isfinite(value) else '–'


def frontier_report(run: Run) -> str:
  """Writes frontier.json, frontier.md and figures/frontier.png; returns the table."""
  found: Frontier = run.get(sweep_stage(run.settings, run.road))
  text = table(run.settings.policy, found)
  write_json(run / 'frontier.json', null_for_nan([
      {'lists': name} | r._asdict() for name, rows in found.points.items() for r in rows]))
  write_text(run / 'frontier.md', text)
  figures.save(figures.frontier(found.points, found.curves), run / 'figures/frontier.png')
  return text
