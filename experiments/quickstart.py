"""The whole road: simulate, train the experts, calibrate, fit the policy, evaluate, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
"""

from pathlib import Path
import shlex

from jobrec_jax import command_line
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.files.records import entity_json
from jobrec_jax.data.lists import candidates_of
from jobrec_jax.pipeline.report import main_text, report
from jobrec_jax.pipeline.run import Run
from jobrec_jax.schema.files import write_text
from jobrec_jax.scoring.policy import Alone


def main(run: Run) -> None:
  if run.is_complete():
    print(f'The run is complete: {run / "report.html"}')
    return
  print(main_text(report(run)))
  print(f'The whole report: {run / "report.html"}')
  trained, asked, tau = run.get(run.road.policy), '', ''
  if not isinstance(trained, Alone):
    highest = f'{trained.policy.knots[-1]:.4f}'
    asked, tau = f', at any tau up to {highest}', f'--tau {highest} '
  who, candidate = somebody(run, run.get(run.road.data).dataset)
  print(f'Jobs for {who}{asked}:\n'
        f'  python -m experiments.recommend --run {shlex.quote(str(run.folder))} {tau}'
        f'--candidate {shlex.quote(str(candidate))}')


def somebody(run: Run, dataset: Dataset) -> tuple[str, Path]:
  """A candidate in a file: of a shipped domain an example; of a schema file's one of the test."""
  if not run.settings.data.schema:
    return ('a candidate that no run has seen',
            Path(f'experiments/examples/{dataset.schema.name}.json'))
  candidate = dataset.candidates[candidates_of(dataset, 'test')[0]]
  write_text(run / 'candidate.json', entity_json(candidate, dataset.schema, 'candidate') + '\n')
  return f'candidate {candidate.id} of the test', run / 'candidate.json'


if __name__ == '__main__':
  command_line.start(main, 'configs/quickstart.py', 'runs/quickstart')
