"""Every setting of a run, with its default, its range and what it does, in one tree of dataclasses.

`Settings()` is the quickstart. A script turns it into a config with flags; a program builds it:
`Settings(policy=PolicySettings(grid=4))`. Whatever can be wrong without looking at the data is
refused when the tree is built; `check_devices` adds what depends on the machine, and
`pipeline.data.check_sizes` what depends on the data.
"""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

from jobrec_jax.baselines import rivals
from jobrec_jax.data.market.domain import load_domain
from jobrec_jax.data.market.simulator import MarketConfig
from jobrec_jax.data.tables.definition import read_schema
from jobrec_jax.evaluate.certification import CertifyConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.models.policy import HeadKind
from jobrec_jax.pipeline.model import BackboneSettings, ModelSettings, TokenizerSettings
from jobrec_jax.pipeline.training_settings import (
  CooperativeSettings,
  ExplainSettings,
  StageSettings,
  WriterSettings,
)
from jobrec_jax.refine.review import check_names
from jobrec_jax.schema.align import fields_with_verdicts
from jobrec_jax.schema.files import expanded
from jobrec_jax.schema.schema import PERSPECTIVES, Schema
from jobrec_jax.schema.settings import above, at_least, check, within
from jobrec_jax.scoring.features import ScoringConfig
from jobrec_jax.sharding import MeshConfig
from jobrec_jax.train.policy import PolicyConfig


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Where the data come from, and how a simulated market is divided."""

  # Root of the market's random streams, and of what a reader draws; training has its own.
  seed: Annotated[int, at_least(0)] = 0
  # 'simulated'; 'jobrec_synth' (tensorflow-datasets); or files: a user's own 'tables', or what
  # experiments.export writes: 'jsonl', 'published', 'recbole'.
  source: Literal['simulated', 'jobrec_synth', 'tables', 'jsonl', 'published',
                  'recbole'] = 'simulated'
  # Schema file (TOML) of the data; empty: the schema of market.domain.
  schema: str = ''
  # Where the files lie, or tensorflow-datasets keeps its data; 'tables': the schema file's folder
  # where this is empty.
  folder: str = ''
  # 'jobrec_synth': which of its worlds.
  size: Literal['tiny', 'paper', 'large'] = 'tiny'
  # 'recbole': PREFIX.inter, PREFIX.user, PREFIX.item.
  prefix: str = 'jobrec'
  # Candidates in train, validation, calibration and test.
  shares: Annotated[tuple[float, float, float, float], within(0, 1, True, True)] = (
      0.5, 0.1, 0.15, 0.25)
  # Share of jobs that only the test sees.
  cold_jobs: Annotated[float, within(0, 1, open_high=True)] = 0.2
  # Share of training candidates' interactions that the test keeps.
  warm_test: Annotated[float, within(0, 1, open_high=True)] = 0.1
  # Whether negatives that several splits hold are left in one of them.
  drop_shared_negatives: bool = False
  # 'published': keep labelled users that have no record.
  allow_unknown_users: bool = False
  # Errors of the audit that do not stop the run, by name.
  known_faults: tuple[str, ...] = ()

  def __post_init__(self):
    check(self)
    if abs(sum(self.shares) - 1) > 1e-6:
      raise ValueError(f'shares must have the sum 1, got {self.shares}')
    if self.source not in ('simulated', 'tables') and not self.folder:
      raise ValueError(f"folder must name the folder of the data when source is {self.source!r}, "
                       "got ''")
    drawn = self.source in ('simulated', 'jobrec_synth')
    if drawn and self.schema:
      raise ValueError(f'schema must be empty when source is {self.source!r}, whose schema is that '
                       f'of market.domain, got {self.schema!r}')
    if self.source == 'tables' and not self.schema:
      raise ValueError("schema must name a schema file when source is 'tables', got ''; "
                       'experiments.describe writes a first one')

  @property
  def place(self) -> Path:
    """The folder of the files."""
    return expanded(self.folder) if self.folder else expanded(self.schema).parent


@dataclasses.dataclass(frozen=True)
class ListSettings:
  """Training lists."""

  # n of a candidate's list; this and all sizes of lists are fewer where the data hold fewer.
  preference_negatives: Annotated[int, at_least(1)] = 7
  # 'exposed': shown and not applied to; or 'uniform'.
  preference_policy: Literal['exposed', 'uniform'] = 'exposed'
  # n of a job's list, rejected applicants.
  qualification_negatives: Annotated[int, at_least(1)] = 7
  # Share of a batch's lists that are around the other side: for preference around a job, for
  # qualification around a candidate. None where it comes to less than one list.
  across: Annotated[float, within(0, 1, open_high=True)] = 0.25

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class ExpertSettings:
  """How the experts learn together."""

  # Weight of the cross-entropy beside the contrast, in both experts' losses.
  beta: Annotated[float, above(0)] = 1.0
  # Share of the attributes, of candidates and of jobs, that training lists take as missing: of most
  # records few, of some nearly all; see `data.missing`. Experts that never met a sparse record
  # score one at will. 0.1 leaves three in four records whole; 0 where the data's gaps are enough.
  missing: Annotated[float, within(0, 1, open_high=True)] = 0.0
  # How the two tasks are weighted; 'softmax' is the published one.
  task_weights: Literal['uncertainty', 'softmax', 'fixed'] = 'uncertainty'
  # Of preference and qualification, for 'fixed'.
  fixed_weights: Annotated[tuple[float, float], at_least(0)] = (0.5, 0.5)
  # 'ips': reweight applicants by the inverse of their estimated propensity.
  censoring: Literal['ips', 'none'] = 'ips'
  # Greatest weight of an applicant, in means.
  ips_clip: Annotated[float, at_least(1)] = 10.0
  # 'estimated': preference is learned as what, with the courage that the chance of being eligible
  # gives, explains applications, and both experts start at the likelihood of the whole funnel;
  # 'none': preference as applications, qualification from verdicts alone.
  self_censoring: Literal['estimated', 'none'] = 'estimated'
  # What p_qual's scale is fitted to; 'none': p_qual = sigmoid(s_qual), as published.
  calibration: Literal['applicants', 'none'] = 'applicants'
  # Tokens of a written reason of each perspective that experts read before they judge a pair, as an
  # ablation ('reason first'); 0: they judge first, and a writer says why. On simulated markets.
  chain: Annotated[int, at_least(0)] = 0

  def __post_init__(self):
    check(self)
    if not sum(self.fixed_weights):
      raise ValueError(f'fixed_weights must not all be 0, got {self.fixed_weights}')


@dataclasses.dataclass(frozen=True)
class PolicySettings(PolicyConfig):
  """Stage 2: its lists, its requirements and its head, beside how it learns."""

  lists: Annotated[int, at_least(1)] = 300  # N
  held_out: Annotated[int, at_least(1)] = 150  # lists alike, of test candidates
  list_length: Annotated[int, at_least(2)] = 50  # J: jobs in a list, one of them applied to
  # The requirements to report; empty: a grid over what is attainable.
  taus: Annotated[tuple[float, ...], within(0, 1)] = ()
  grid: Annotated[int, at_least(2)] = 6  # how many tau the grid has
  # Requirements that the head is trained for; between them it is linear.
  knots: Annotated[int, at_least(2)] = 12
  # What lambda starts from and falls back to: the exact dual's policy s_pref + mu p_qual at every
  # requirement, or preference alone (published), where it must keep the requirement by itself.
  start: Literal['exact', 'preference'] = 'exact'
  # What tau binds: C as the qualification expert believes it, or as the outcomes of held-out
  # applicants correct it, doubly robust and as far as they can be told from the belief.
  eligibility: Literal['believed', 'estimated'] = 'believed'
  # How lambda depends on pair and requirement: an MLP whose hidden layer all knots share, an MLP
  # for each knot, a number for each knot, or lambda = 0.
  head: HeadKind = 'conditioned'
  width: Annotated[int, at_least(1)] = 64  # hidden width of the head
  # Lambda lies in [-bound, bound]; by itself it stops the highest requirements, at the published
  # 5 the earlier.
  bound: Annotated[float, above(0)] = 10.0

  def __post_init__(self):
    super().__post_init__()
    if self.start != 'exact' and (self.top_k or self.worth != 'preference'):
      raise ValueError("start must be 'exact' with top_k or with objective 'expected_surplus', "
                       f'which the exact dual alone solves, got {self.start!r}')
    if self.eligibility != 'believed' and (
        self.start != 'exact' or self.objective == 'info_nce'):
      raise ValueError("eligibility must be 'believed' unless start is 'exact' and the objective "
                       f'an expected one, got {self.eligibility!r} with {self.start!r} and '
                       f'{self.objective!r}')
    if self.top_k > self.list_length:
      raise ValueError(f'top_k must be at most list_length = {self.list_length}, got {self.top_k}')
    if self.batch > self.lists:
      raise ValueError(f'batch must be at most lists = {self.lists}, got {self.batch}')


@dataclasses.dataclass(frozen=True)
class SweepSettings:
  """Heads trained one for each tau, to compare with the one policy: every combination."""

  seeds: Annotated[tuple[int, ...], at_least(0)] = (0,)  # of initial weights and order
  learning_rates: Annotated[tuple[float, ...], above(0)] = ()  # of AdamW; empty: the policy's
  # Gains (ki, kp, kd, nu) of the multiplier; empty: the policy's.
  rules: tuple[tuple[float, float, float, float], ...] = ()

  def __post_init__(self):
    check(self)
    if not self.seeds:
      raise ValueError('seeds must name at least one seed, got ()')
    for ki, kp, kd, nu in self.rules:  # their bounds in `PolicyConfig`
      if not (ki > 0 and kp >= 0 and kd >= 0 and 0 <= nu < 1):
        raise ValueError('rules must be gains (ki, kp, kd, nu) with ki above 0, kp and kd at least '
                         f'0, and nu in [0, 1), got {(ki, kp, kd, nu)}')


@dataclasses.dataclass(frozen=True)
class ExportSettings:
  """Files of a data set."""

  format: Literal['jsonl', 'published', 'recbole'] = 'jsonl'  # JSON lines, CSV or atomic files
  workers: Annotated[int, at_least(1)] = 1  # processes that draw a market; files do not show it

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
  """What is measured."""

  # Held-out candidates whose pairs are ranked, drawn at random; 0: all.
  candidates: Annotated[int, at_least(0)] = 0
  level: Annotated[float, within(0, 1, True, True)] = 0.95  # of every interval
  # Attributes of candidates, by name: NDCG and eligibility of each of their values, of numbers by
  # quarters of the candidates.
  groups: tuple[str, ...] = ()
  # Who the experts stand beside, some of `baselines.rivals.RIVALS`.
  rivals: tuple[str, ...] = rivals.DEFAULT

  def __post_init__(self):
    check(self)
    rivals.check_names(self.rivals)


@dataclasses.dataclass(frozen=True)
class RefineSettings:
  """Noisy labels, doubtful pairs and the experts who judge them."""

  perspectives: tuple[Literal['preference', 'qualification'], ...] = PERSPECTIVES
  # Simulated data: how many uniform pairs the machine labels, at most.
  pairs: Annotated[int, at_least(10)] = 60_000
  flip: Annotated[float, within(0, 0.49)] = 0.15  # simulated data: share of flipped labels
  budget: Annotated[float, within(0, 1)] = 0.1  # share of labelled pairs that are reviewed
  verdicts: Annotated[int, at_least(1)] = 3  # experts who judge each reviewed pair
  # Experts with the rates below, or people, through files.
  reviewers: Literal['simulated', 'people'] = 'simulated'
  error_rates: Annotated[tuple[float, ...], within(0, 0.5, open_high=True)] = (
      0.05, 0.1, 0.1, 0.15, 0.2)
  people: tuple[str, ...] = ('reviewer-1', 'reviewer-2', 'reviewer-3')

  def __post_init__(self):
    check(self)
    if not 0 < len(set(self.perspectives)) == len(self.perspectives):
      raise ValueError(f'perspectives must be some of {PERSPECTIVES}, each once, '
                       f'got {self.perspectives!r}')
    try:
      check_names(self.people)
    except ValueError as error:
      raise ValueError(f'people: {error}') from error
    if self.verdicts > len(self.names):
      raise ValueError(f'verdicts must be at most the {len(self.names)} reviewers, '
                       f'got {self.verdicts}')

  @property
  def names(self) -> tuple[str, ...]:
    if self.reviewers == 'people':
      return tuple(self.people)
    return tuple(f'expert_{i + 1}' for i in range(len(self.error_rates)))


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings; see the sections."""

  # Root of training's random streams: weights, order, dropout, negatives, lists.
  seed: Annotated[int, at_least(0)] = 0
  log_every: Annotated[int, at_least(1)] = 10  # steps between two lines of progress and metrics
  # An interruption that gives no notice loses at most so much training.
  save_seconds: Annotated[float, above(0)] = 30.0
  mesh: MeshConfig = MeshConfig()
  data: DataSettings = DataSettings()
  market: MarketConfig = MarketConfig()
  tokenizer: TokenizerSettings = TokenizerSettings()
  backbone: BackboneSettings = BackboneSettings()
  lora: LoraConfig = LoraConfig()
  model: ModelSettings = ModelSettings()
  lists: ListSettings = ListSettings()
  experts: ExpertSettings = ExpertSettings()
  warm_up: StageSettings = StageSettings()
  cooperative: CooperativeSettings = CooperativeSettings()
  writer: WriterSettings = WriterSettings()
  features: ScoringConfig = ScoringConfig()
  policy: PolicySettings = PolicySettings()
  sweep: SweepSettings = SweepSettings()
  export: ExportSettings = ExportSettings()
  evaluate: EvaluateSettings = EvaluateSettings()
  certify: CertifyConfig = CertifyConfig()
  refine: RefineSettings = RefineSettings()
  explain: ExplainSettings = ExplainSettings()

  def __post_init__(self):
    check(self)
    self._check_pairs()
    if self.data.source == 'simulated':
      self._check_market()

  def _check_pairs(self) -> None:
    """What depends on two sections."""
    if self.tokenizer.phrases and not self.backbone.path:
      raise ValueError('tokenizer.phrases must be 0 without backbone.path, for a tokenizer that is '
                       f'trained here has its phrases already, got {self.tokenizer.phrases}')
    if not self.warm_up.steps and self.experts.censoring == 'ips':
      raise ValueError("experts.censoring must be 'none' where warm_up.steps is 0, for the "
                       "propensity is what stage 1A learns, got 'ips'; set "
                       "experts.censoring='none'")
    if self.features.states and self.model.attention != 'factored':
      raise ValueError("features.states must be '' unless model.attention is 'factored', whose "
                       f'blocks are read alone, got {self.features.states!r}')
    if self.model.readout == 'last_token' and self.lora.per_expert:
      raise ValueError("model.readout must be 'expert_tokens' with lora.per_expert, whose experts "
                       "read the pair apart and share no state, got 'last_token'")
    if self.experts.chain:
      self._check_chain()
    schema = schema_of(self).without(self.tokenizer.without_layers)
    fields = len(fields_with_verdicts(schema))
    if self.tokenizer.verdicts == 'vectors' and 0 < self.tokenizer.alignment < fields:
      raise ValueError("tokenizer.alignment must be 0 or hold the schema's "
                       f"{fields} fields with verdicts where tokenizer.verdicts is 'vectors', "
                       f'got {self.tokenizer.alignment}')
    single = [a.name for a in schema_of(self).attributes('candidate')
              if a.kind not in ('set', 'text')]
    for name in self.evaluate.groups:
      if name not in single:
        raise ValueError("evaluate.groups must be candidates' attributes of one value, some of "
                         f'{single}, got {name!r}')
    if self.certify.k > self.policy.list_length:
      raise ValueError(f'certify.k must be at most policy.list_length = {self.policy.list_length}, '
                       f'got {self.certify.k}')

  def _check_chain(self) -> None:
    """What experts that read written reasons need."""
    t = self.tokenizer
    for key, value, allowed in (('data.source', self.data.source, ('simulated',)),
                                ('tokenizer.layout', t.layout, ('schema',)),
                                ('tokenizer.verdicts', t.verdicts, ('words', 'symbols')),
                                ('experts.missing', self.experts.missing, (0.0,))):
      if value not in allowed:
        raise ValueError(f'{key} must be {" or ".join(map(repr, allowed))} where experts.chain is '
                         f'above 0, got {value!r}')

  def _check_market(self) -> None:
    """What depends on the size of the simulated market."""
    warm = self.market.jobs - round(self.data.cold_jobs * self.market.jobs)
    if warm < 2:
      raise ValueError('market.jobs must leave training 2 jobs or more, got '
                       f'{self.market.jobs}, of which it sees {warm}; lower data.cold_jobs')
    trained = math.floor(self.data.shares[0] * self.market.candidates)
    if not trained:
      raise ValueError('market.candidates must leave training one or more, got '
                       f'{self.market.candidates} with data.shares={self.data.shares}')


def schema_of(settings: Settings) -> Schema:
  """The schema of the data: of the schema file, or of the market's domain.

  Raises:
    ValueError: the file is missing or wrong.
  """
  if settings.data.schema:
    return read_schema(settings.data.schema)
  return load_domain(settings.market.domain).schema


def check_devices(settings: Settings, count: int) -> None:
  """Checks what must divide by the mesh over `count` devices.

  Raises:
    ValueError: with the key, what was allowed and what came.
  """
  m = settings.mesh
  inner = m.fsdp * m.tensor
  data = count // inner if m.data == -1 else m.data
  if data * inner != count:
    raise ValueError(f'mesh.data, mesh.fsdp and mesh.tensor must multiply to the {count} devices '
                     f'there are, got {m.data}, {m.fsdp} and {m.tensor}')
  lists = data * m.fsdp
  for section, key in (('warm_up', 'batch'), ('cooperative', 'batch'),
                       ('cooperative', 'qualification_batch'), ('features', 'batch')):
    value = getattr(getattr(settings, section), key)
    if value % lists:
      raise ValueError(f'{section}.{key} must divide by mesh.data x mesh.fsdp = {lists}, '
                       f'got {value}')
  if settings.backbone.path:
    return
  for key, axes in (('heads', m.tensor), ('kv_heads', m.tensor), ('mlp_width', m.tensor),
                    ('width', m.fsdp)):
    value = getattr(settings.model, key)
    if value % axes:
      raise ValueError(f'model.{key} must divide by the mesh axes it lies on, {axes}, got {value}')
