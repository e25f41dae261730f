"""A run: a folder that names its artefacts in one file, and holds results and report.

  RUN/run.json    settings, and the artefact of each stage
  RUN/store/      the artefacts, unless the store lies elsewhere to be shared by runs
  RUN/results.json, results.md, report.html, figures/
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrec_jax.pipeline.data import check_sizes
from jobrec_jax.pipeline.record import FILE, read_record, write_record
from jobrec_jax.pipeline.road import Road, resources, road, used_beside
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage, plain
from jobrec_jax.pipeline.store import Store
from jobrec_jax.schema.files import digest
from jobrec_jax.schema.settings import build
from jobrec_jax.train.watch import Watching

if TYPE_CHECKING:
  from jobrec_jax.pipeline.evaluate import Evaluation
  from jobrec_jax.pipeline.mirror import Mirror

REPORT = ('results.json', 'results.md', 'report.html')


class Run:
  """A run folder, its road and its store: the whole road for programs.

    run = jobrec_jax.Run('runs/mine', jobrec_jax.Settings(seed=1))
    run.get(run.road.calibration)        # trains the experts, if they are not there
    run.get(run.road.policy).policy      # fits the policy
    run.report().rows                    # measures, and writes what a person opens
    jobrec_jax.load('runs/mine')         # ranks jobs for new candidates

  Args:
    folder: made when the first stage is.
    settings: of the run.
    store: where artefacts lie; None for the run's own store.
    watching: where the course of training goes too; its folder is this one.
    mirror: where artefacts lie, too, such as `pipeline.mirror.Mirror('gs://BUCKET/FOLDER')`.
  """

  def __init__(self, folder: str | Path, settings: Settings, store: str | Path | None = None,
               watching: Watching = Watching(), mirror: 'Mirror | None' = None):
    self.folder, self.settings = Path(folder), settings
    self.road: Road = road(settings)
    watching = dataclasses.replace(watching, folder=str(folder))
    self.store = Store(self.folder / 'store' if store is None else store,
                       resources(settings, watching), mirror)

  def __truediv__(self, name: str) -> Path:
    return self.folder / name

  def get(self, stage: Stage) -> Any:
    """The value of a stage, made where it is not there.

    Raises:
      ValueError: the data do not allow a setting, or something that lies there is damaged.
    """
    trains = any(s.key == self.road.warm_up.key for s in stage.walk())
    with self.progress(stage):
      if trains and not self.store.has(self.road.warm_up):
        check_sizes(self.settings, self.store.get(self.road.data))  # before anything is trained
      value = self.store.get(stage)
      if self.store.has(self.road.policy):  # whoever has a policy can recommend
        self.store.make(self.road.catalogue)
    self.write()
    return value

  def progress(self, *stages: Stage) -> contextlib.AbstractContextManager[None]:
    """Inside, a stage that starts is told as one of all that these need; `Store.progress`."""
    catalogue = any(s.key == self.road.policy.key for stage in stages for s in stage.walk())
    return self.store.progress([*stages, *([self.road.catalogue] if catalogue else [])])

  def report(self) -> 'Evaluation':
    """Makes what is missing of the run, and writes results.json, results.md and report.html."""
    from jobrec_jax.pipeline.report import report  # here, for it takes a run
    return report(self)

  def stages(self) -> Iterator[Stage]:
    for field in dataclasses.fields(self.road):
      yield getattr(self.road, field.name)

  def write(self) -> None:
    """Writes run.json: the settings, the artefacts that are there, the report's digests."""
    stages = [*self.stages(), *used_beside(self.settings, self.road)]
    there = {s.name: s.key for stage in stages for s in stage.walk() if self.store.has(s)}
    report = {name: digest(self / name) for name in REPORT if (self / name).is_file()}
    write_record(self.folder, settings=plain(self.settings), artefacts=there, report=report,
                 store=os.path.relpath(self.store.folder, self.folder))

  def is_complete(self) -> bool:
    """Whether the folder holds the report of these settings, as it was written."""
    try:
      record = read_record(self.folder)
    except ValueError:
      return False
    same = record['settings'] == plain(self.settings)
    there = all(self.store.has(stage) for stage in self.stages())
    return same and there and set(record['report']) == set(REPORT) and all(
        (self / name).is_file() and digest(self / name) == d
        for name, d in record['report'].items())


def settings_of(folder: str | Path) -> Settings:
  """The settings with which a run folder was made last.

  Raises:
    ValueError: it holds no run, or one whose settings this version does not know.
  """
  try:
    return build(Settings, read_record(folder)['settings'])
  except ValueError as error:
    if str(error).startswith(str(folder)):
      raise
    path = Path(folder) / FILE
    raise ValueError(f'{path}: settings of another version: {error}') from error
