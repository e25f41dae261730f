"""Loading a finished run for use: nothing of training is imported, no data of the run are needed.

    loaded = jobrec_jax.load('runs/quickstart')       # or a file that pack wrote
    loaded.recommend(candidate, tau=0.6)[0].jobs

The artefacts are those that run.json names. Each is read only when it is what was made, and the
keys of what it was made from lead to the others: parts of different runs do not pass as one.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
import contextlib
import dataclasses
from pathlib import Path, PurePosixPath
import stat
import tempfile
from typing import Any, NamedTuple
import zipfile

import jax

from jobrec_jax.generate.write import ReasonWriter
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.writer import writer_lora
from jobrec_jax.pipeline.artefacts import (
    Catalogue,
    load_calibration,
    load_catalogue,
    load_list_length,
    load_params,
    load_policy,
)
from jobrec_jax.pipeline.model import ModelSpec, make_model, open_backbone
from jobrec_jax.pipeline.record import FILE, read_record
from jobrec_jax.pipeline.stage import content
from jobrec_jax.pipeline.store import ABOUT, check_whole, read_about
from jobrec_jax.pipeline.text import read_text
from jobrec_jax.recommend import CandidateScores, RankedJobs, Recommender
from jobrec_jax.report.results import ResultRow, read_results
from jobrec_jax.schema.files import digest, expanded
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.schema.settings import build
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import ScoringConfig
from jobrec_jax.scoring.policy import Alone, Policy
from jobrec_jax.sharding import MeshConfig, make_mesh

PARTS = ('tokenizer', 'cooperative', 'calibration', 'policy', 'catalogue')  # read whole
# Which input of which artefact is which other one. Of `inputs` the identity is needed alone.
CHAIN = (('cooperative', 'tokenizer', 'tokenizer'), ('cooperative', 'data', 'data'),
         ('calibration', 'experts', 'cooperative'), ('policy', 'inputs', 'inputs'),
         ('inputs', 'experts', 'cooperative'), ('inputs', 'calibration', 'calibration'),
         ('catalogue', 'data', 'data'), ('writer', 'experts', 'cooperative'))
WRITER = 'writer'  # beside these, where a run has one
# The first version of an artefact whose numbers mean what they mean to this code: the experts'
# heads had ReLU before, and a writer saw the scores at the first token alone.
OLDEST = {'cooperative': 6, 'writer': 2}
RESULTS = 'results.json'


class Parts(NamedTuple):
  """The artefacts of a run that recommending needs, found whole and of one run.

  Attributes:
    record: what run.json holds.
    folders: of `PARTS`, and of the writer, by name.
    abouts: what artefact.json says of these, and of 'inputs'.
  """

  record: dict[str, Any]
  folders: dict[str, Path]
  abouts: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """A finished run, ready to recommend.

  Attributes:
    settings: the run's, as run.json holds them: sections of plain values.
    recommender: schema, experts, calibration, policy and the run's own jobs.
    results: the rows of its report; empty where none was written.
    catalogue: what the recommender knows of the data, and how the user's tables are written.
    list_length: jobs in a list of stage 2, over which tau binds; 0 without a policy.
    writer: of reasons; None where none was trained.
  """

  settings: Mapping[str, Any]
  recommender: Recommender
  results: tuple[ResultRow, ...]
  catalogue: Catalogue
  list_length: int
  writer: ReasonWriter | None = None

  @property
  def schema(self) -> Schema:
    return self.recommender.schema

  @property
  def experts(self) -> Experts:
    return self.recommender.experts

  @property
  def calibration(self) -> Calibration:
    return self.recommender.calibration

  @property
  def policy(self) -> Policy | Alone:
    return self.recommender.policy

  @property
  def jobs(self) -> tuple[Entity, ...]:
    return self.recommender.jobs

  def recommend(self, candidates: Entity | Sequence[Entity], tau: float | None = None,
                top_k: int = 5, jobs: Sequence[Entity] | None = None,
                without: Sequence[Collection[str]] | None = None,
                shortlist: int | None = None) -> list[RankedJobs]:
    """The best jobs for each candidate under `C >= tau`; see `Recommender.recommend`."""
    return self.recommender.recommend(candidates, tau, top_k, jobs, without, shortlist)

  def score(self, candidates: Entity | Sequence[Entity],
            jobs: Sequence[Entity] | None = None) -> CandidateScores:
    """Scores of every candidate with every job, for any requirement; see `Recommender.score`."""
    return self.recommender.score(candidates, jobs)


def load(path: str | Path, backbone: str | None = None) -> LoadedRun:
  """Loads a run for use, on all devices there are.

  Args:
    path: a run folder, or a file that `pipeline.pack.pack` wrote.
    backbone: where the pretrained decoder lies, if not where it lay when the run was made.

  Raises:
    ValueError: a part is missing, is not what was made, or is of another run; it names the part.
  """
  with opened(path) as folder:
    parts = find_parts(folder, parts_of(folder))
    settings = parts.record['settings']
    catalogue = load_catalogue(parts.folders['catalogue'])
    policy = load_policy(parts.folders['policy'])[0]
    results = results_file(folder, parts.record)
    experts = _experts(parts, backbone)
    features = {k: v for k, v in settings['features'].items() if k != 'states'}
    mesh = make_mesh(_fitting(build(MeshConfig, settings['mesh'])))
    recommender = Recommender(catalogue.schema, *experts, policy, catalogue.jobs, mesh,
                              build(ScoringConfig, features), catalogue.missing)
    return LoadedRun(settings, recommender, tuple(read_results(results) if results else ()),
                     catalogue, load_list_length(parts.folders['policy']),
                     _writer(parts, experts[0], catalogue.schema))


def load_experts(path: str | Path, backbone: str | None = None) -> tuple[Experts, Calibration]:
  """The experts alone, which need no policy; as `load`."""
  with opened(path) as folder:
    return _experts(find_parts(folder, PARTS[:3]), backbone)


def parts_of(folder: Path) -> tuple[str, ...]:
  """The names of the artefacts that a run folder has for recommending."""
  return (*PARTS, WRITER) if WRITER in read_record(folder)['artefacts'] else PARTS


def find_parts(folder: Path, names: Sequence[str] = PARTS) -> Parts:
  """The named artefacts of a run folder.

  Raises:
    ValueError: one is missing, is not what was made, was made from those of another run, or by a
      version whose numbers this one would misread.
  """
  record = read_record(folder)
  chain = record['settings']['experts'].get('chain')
  if chain:
    raise ValueError(f'{folder / FILE}: experts.chain must be 0 in a run that is loaded, for pairs '
                     f'of new records have no reason yet, got {chain}')
  keys, store = record['artefacts'], folder / record['store']
  known = (*names, 'inputs') if 'policy' in names else names
  abouts = {}
  for name in known:
    place = store / keys.get(name, name)
    step = ('train_experts' if name in PARTS[:3] else 'explain' if name == WRITER else 'fit_policy')
    command = f'python -m experiments.{step} --workdir={folder}'
    if not (place / ABOUT).is_file():
      raise ValueError(f'{place}: must be the artefact {name}, got no such folder; make it: '
                       f'{command}')
    abouts[name] = check_whole(place) if name in names else read_about(place)
    version = abouts[name]['identity']['version']
    if version < OLDEST.get(name, 0):
      raise ValueError(f'{place}: must be of version {OLDEST[name]} or later, got {version}, which '
                       f'an earlier jobrec_jax made in another form; make it again: {command}')
  for name, of, other in CHAIN:
    if name in known and abouts[name]['identity']['inputs'].get(of) != keys.get(other):
      raise ValueError(f'{store / keys[name]}: must be made from {keys.get(other)}, which '
                       f"{folder / FILE} names, got {abouts[name]['identity']['inputs'].get(of)}")
  return Parts(record, {name: store / keys[name] for name in names}, abouts)


def _experts(parts: Parts, backbone: str | None) -> tuple[Experts, Calibration]:
  """Raises ValueError: the backbone is not the one that the experts were trained on."""
  identity = parts.abouts['cooperative']['identity']
  text = read_text(parts.folders['tokenizer'], build(ModelSpec, identity['settings']['spec']))
  params = load_params(parts.folders['cooperative'] / 'params.safetensors')['model']
  decoder = None
  if text.spec.pretrained:
    from jobrec_jax.weights.backbone import locate  # here, for readers of weights take their time
    place = parts.record['settings']['backbone']['path'] if backbone is None else backbone
    if [content(locate(place))] != identity['files']:
      raise ValueError('backbone must be the decoder that the experts were trained on, got another '
                       f'one: {place}')
    decoder = open_backbone(text.spec, place)
    params = params | {'decoder': decoder.load(None)}
  model = make_model(text.spec, text.tokenizer, decoder)
  _check_tables(parts.folders['cooperative'], model, params)
  return text.experts(model, params), load_calibration(parts.folders['calibration'])


def _check_tables(folder: Path, model: JobRec, params: Mapping[str, Any]) -> None:
  """Raises ValueError: tables of embeddings have other rows than this version gives them."""
  wanted = {'embedding': (model.config.decoder.vocab_size, params['decoder']['embedding'])}
  if model.config.phrases:
    wanted['phrases'] = model.config.phrases, params['phrases']
  for name, (rows, table) in wanted.items():
    if len(table) != rows:
      raise ValueError(f'{folder}: {name} must have {rows} rows, got {len(table)}, as an earlier '
                       'version of jobrec_jax wrote them; the command that made the run makes it '
                       'again')


def _writer(parts: Parts, experts: Experts, schema: Schema) -> ReasonWriter | None:
  if WRITER not in parts.folders:
    return None
  rank = parts.abouts[WRITER]['identity']['settings'][WRITER]['rank']
  return ReasonWriter(experts, writer_lora(rank),
                      load_params(parts.folders[WRITER] / 'params.safetensors'), schema)


def _fitting(mesh: MeshConfig) -> MeshConfig:
  """The run's mesh where it covers this machine's devices, else all of them as data."""
  inner, count = mesh.fsdp * mesh.tensor, jax.device_count()
  covers = count % inner == 0 and mesh.data in (-1, count // inner)
  return mesh if covers else MeshConfig()


def results_file(folder: Path, record: Mapping[str, Any]) -> Path | None:
  """results.json of a run folder, found as it was written; None where the run wrote none.

  Raises:
    ValueError: it is missing or has another content.
  """
  path, was = folder / RESULTS, record['report'].get(RESULTS)
  if was is not None and digest(path) != was:
    raise ValueError(f'{path}: must be as it was written, got another content; write it again: '
                     f'python -m experiments.evaluate --workdir={folder}')
  return None if was is None else path


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Path]:
  """The run folder itself, or a temporary one with what a packed file holds."""
  path = expanded(path)
  if path.is_dir() or not path.exists():
    yield path
    return
  with tempfile.TemporaryDirectory(prefix='jobrec-') as folder:
    _extract(path, Path(folder))
    try:
      yield Path(folder)
    except ValueError as error:
      inside = str(error).replace(f'{folder}/', '')
      raise ValueError(f'{path}: must be as it was packed, got: {inside}') from error


def _extract(path: Path, folder: Path) -> None:
  """Unpacks plain files below `folder` alone.

  Raises:
    ValueError: the file is none that pack wrote.
  """
  try:
    with zipfile.ZipFile(path) as packed:
      entries = packed.infolist()
      for entry in entries:
        if problem := _problem(entry):
          raise ValueError(f'{path}: must hold plain files that are stored, got {problem}: '
                           f'{entry.filename!r}')
      if FILE not in packed.namelist():
        raise ValueError(f'{path}: must be a run folder or a packed run, got a zip file without '
                         f'{FILE}')
      size = sum(e.file_size for e in entries)
      if size > path.stat().st_size:
        raise ValueError(f'{path}: must hold what its size allows, got entries of {size} bytes')
      packed.extractall(folder)
  except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
    raise ValueError(f'{path}: must be a run folder or a packed run, got: {error}') from error


def _problem(entry: zipfile.ZipInfo) -> str | None:
  """What is wrong with an entry, if anything is."""
  name = PurePosixPath(entry.filename)
  if name.is_absolute() or '..' in name.parts or '\\' in entry.filename or ':' in entry.filename:
    return 'a path that leads out'
  if entry.is_dir() or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
    return 'no plain file'
  if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
    return 'a compressed or encrypted one'
  return None
