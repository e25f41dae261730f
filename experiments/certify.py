"""Certifies a finished run on a simulated market, and checks the promise on a fresh population.

  python -m experiments.certify --config=configs/quickstart.py --workdir=runs/quickstart
"""

import dataclasses
import json
import math

from ml_collections import ConfigDict
import numpy as np

from experiments import certification, reporting, setup, stages
from experiments.alignment import load_policy
from jobrec_jax.data.dataset import UNOBSERVED, Dataset
from jobrec_jax.data.lists import warm_jobs
from jobrec_jax.data.market.simulator import make_market, newcomers
from jobrec_jax.data.tokens import BlockEncoder, BlockLengths, load_tokenizer
from jobrec_jax.evaluate.certification import (
  LTT,
  WHOLE,
  CertifiedRow,
  CertifyConfig,
  ProofRow,
  certify,
  policy_losses,
  prove,
  prove_groups,
  wrong_at_most,
)
from jobrec_jax.report import figures
from jobrec_jax.report.results import Table, format_number, to_markdown
from jobrec_jax.schema.files import write_text

THIRDS = ('lowest third of p_qual', 'middle third', 'highest third of p_qual')


def applicants_losses(config: ConfigDict, people: Dataset,
                      population: certification.Scored) -> dict[str, np.ndarray]:
  """What a log shows: losses over the jobs of each list that its candidate applied to.

  Lists without an application show nothing, and are left out.
  """
  log, lists = people.interactions, population.lists
  label = np.full((len(people.candidates), len(people.jobs)), UNOBSERVED, np.int8)
  label[log.candidate, log.job] = log.qualification
  seen = label[lists.candidate, lists.job]
  kept = (seen != UNOBSERVED).any(1)
  seen = seen[kept]
  return policy_losses(population.scores[:, kept], seen == 1, seen != UNOBSERVED,
                       config.certify.k, config.policy.temperature)


def thirds(p_qual: np.ndarray) -> np.ndarray:
  """[N] the third of candidates to which each belongs by the mean p_qual of its list: no label."""
  belief = p_qual.mean(1)
  return np.array(THIRDS)[np.searchsorted(np.quantile(belief, (1 / 3, 2 / 3)), belief)]


def prove_all(config: ConfigDict, settings: CertifyConfig, people: Dataset,
              population: certification.Scored) -> list[ProofRow]:
  """With all labels, with those of applicants, and by thirds of candidates."""
  risks = population.risks()
  return [*prove(population.losses, risks, settings, config.seed),
          *prove(applicants_losses(config, people, population), risks, settings, config.seed,
                 "applicants' labels"),
          *prove_groups(population.losses[WHOLE], thirds(population.p_qual), settings,
                        config.seed)]


def proof_table(rows: list[ProofRow], settings: CertifyConfig) -> Table:
  title = (f'{settings.draws} calibration sets of {settings.lists} lists: α {settings.alpha:g}, '
           f'learn then test wrong in at most {wrong_at_most(settings):.3f} of them')
  header = ('of', 'labels', 'certify', 'wrong', 'risk seen', 'true risk', 'true risk, none as 0')
  return Table(title, header, tuple(
      (f'{r.loss}, {r.method}', r.labels, *map(format_number, r[3:])) for r in rows))


def write(settings: CertifyConfig, run: setup.Run, taus: np.ndarray, mine: certification.Scored,
          rows: list[CertifiedRow], population: certification.Scored,
          proof: list[ProofRow]) -> None:
  """Writes certificates.json and figures/certificates.png."""
  predicted, true = ({name: 1 - x.mean(0) for name, x in losses.items()}
                     for losses in (population.predicted, population.losses))
  figures.save(figures.certified_eligibility(
      taus, predicted, true, {r.loss: r.tau for r in rows if r.method == LTT},
      1 - settings.alpha), run / 'figures/certificates.png')

  def plain(row):
    return {k: None if isinstance(v, float) and math.isnan(v) else v
            for k, v in row._asdict().items()}
  write_text(run / 'certificates.json', json.dumps({
      'settings': dataclasses.asdict(settings), 'taus': taus.tolist(),
      'certified': [plain(r) for r in rows],
      'held_back': {k: (1 - v.mean(0)).tolist() for k, v in mine.losses.items()},
      'population': {'predicted': {k: v.tolist() for k, v in predicted.items()},
                     'true': {k: v.tolist() for k, v in true.items()}},
      'wrong_at_most': wrong_at_most(settings), 'proof': [plain(r) for r in proof]},
      indent=1, allow_nan=False) + '\n')


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  certificate = settings.certify
  if config.data.source != 'simulated':
    raise ValueError("data.source must be 'simulated', where every label is known and candidates "
                     f'can be drawn anew, got {config.data.source!r}')
  run = setup.Run(workdir)
  calibration = stages.load_calibration(run)
  run.read_json('policy.json', 'experiments.align_policy')
  run.start(config, 'certify')
  setup.use_compilation_cache()
  clock = reporting.Clock()
  with clock('data'):
    dataset, truth = setup.load_data(config, settings.market)
    people, theirs = newcomers(make_market(settings.market, config.seed,
                                           **setup.split_shares(config)), certificate.population)
  with clock('experts'):
    extractor = stages.load_experts(config, settings, run, dataset).extractor(config)
    policy = load_policy(config, run, dataset.schema.fingerprint())
  scorer = certification.Scorer(extractor, calibration, policy)
  with clock('held-back lists'):
    mine = certification.held_back(config, dataset, truth, scorer)
  with clock('population'):
    blocks = BlockEncoder(people, load_tokenizer(run / 'tokenizer.json'),
                          setup.section(BlockLengths, config.tokenizer))
    population = scorer._replace(extractor=extractor.with_blocks(blocks))(
        config, theirs, np.arange(len(people.candidates)), warm_jobs(dataset),
        certification.FRESH, 'population')
  with clock('certificates'):
    taus = scorer.taus(certificate.points)
    rows = certify(mine.losses, mine.predicted, taus, certificate, population.risks())
    proof = prove_all(config, certificate, people, population)
  write(certificate, run, taus, mine, rows, population, proof)
  print(to_markdown(certification.certified_table(rows, config, 'fresh population')))
  print(to_markdown(proof_table(proof, certificate)))


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
