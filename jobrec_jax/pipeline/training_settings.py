"""Settings of the stages that train: steps, rates, batches; and of how reasons are judged."""

import dataclasses
from typing import Annotated

from jobrec_jax.schema.settings import above, at_least, check, within
from jobrec_jax.train.state import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class StageSettings(OptimizerConfig):
  """Stage 1A: AdamW under warm-up and cosine decay."""

  steps: Annotated[int, at_least(0)] = 120  # updates; 0: stage 1B starts from new parameters
  learning_rate: Annotated[float, at_least(0)] = 1e-3  # the peak
  warmup: Annotated[int, at_least(0)] = 30  # updates until the peak
  weight_decay: Annotated[float, at_least(0)] = 0.1  # decoupled, on kernels alone
  clip: Annotated[float, above(0)] = 1.0  # greatest global norm of a gradient
  batch: Annotated[int, at_least(1)] = 16  # preference lists in a step
  # Measurements of the validation loss, at most twelve a stage, that end it where none is as low as
  # before; the best parameters are kept. 0: nothing is measured, and the last ones are kept.
  patience: Annotated[int, at_least(0)] = 4


@dataclasses.dataclass(frozen=True)
class CooperativeSettings(StageSettings):
  """Stage 1B."""

  steps: Annotated[int, at_least(1)] = 180  # updates
  qualification_batch: Annotated[int, at_least(1)] = 8  # qualification lists in a step


@dataclasses.dataclass(frozen=True)
class WriterSettings(StageSettings):
  """Stage 1C: reasons, written beside experts that stay as they are."""

  steps: Annotated[int, at_least(1)] = 300  # updates
  learning_rate: Annotated[float, at_least(0)] = 1e-2  # the peak
  weight_decay: Annotated[float, at_least(0)] = 0.0  # decoupled, on kernels alone
  batch: Annotated[int, at_least(1)] = 8  # lists in a step
  list_length: Annotated[int, at_least(1)] = 4  # jobs of a list, each with a reason of either kind
  lists: Annotated[int, at_least(1)] = 1200  # lists to learn from
  rank: Annotated[int, at_least(1)] = 16  # of the writer's own adapters

  def __post_init__(self):
    super().__post_init__()
    if self.batch > self.lists:
      raise ValueError(f'batch must be at most lists = {self.lists}, got {self.batch}')


@dataclasses.dataclass(frozen=True)
class ExplainSettings:
  """How reasons are judged."""

  pairs: Annotated[int, at_least(10)] = 1000  # held-out pairs, each with a reason of either kind
  level: Annotated[float, within(0, 1, True, True)] = 0.95  # of every interval
  beams: Annotated[int, at_least(1)] = 1  # texts that are tried side by side; 1: the greedy one

  def __post_init__(self):
    check(self)
