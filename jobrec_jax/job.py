"""How a process finds the others of its job: from flags, or from what started them."""

import dataclasses

AUTO = 'auto'


@dataclasses.dataclass(frozen=True)
class Job:
  """How this process finds the others.

  Attributes:
    coordinator: HOST:PORT at which process 0 can be reached; 'auto' under SLURM, Open MPI and on
      TPUs, where JAX finds out all the rest too.
    processes: their number.
    process: which of them this one is, from 0.
    heartbeat_seconds: silence after which a process counts as dead, and the job ends.

  Raises:
    ValueError: a part is missing or out of range.
  """

  coordinator: str
  processes: int | None = None
  process: int | None = None
  heartbeat_seconds: int = 30

  def __post_init__(self):
    if self.heartbeat_seconds < 1:
      raise ValueError(f'--heartbeat_seconds must be at least 1, got {self.heartbeat_seconds}')
    if self.coordinator == AUTO:
      return
    host, _, port = self.coordinator.rpartition(':')
    if not host or not port.isdecimal():
      raise ValueError(f"--coordinator must be HOST:PORT or '{AUTO}', got {self.coordinator!r}")
    if self.processes is None or self.processes < 1:
      raise ValueError(f'--processes must be at least 1 beside --coordinator, got {self.processes}')
    if self.process is None or not 0 <= self.process < self.processes:
      raise ValueError(f'--process must lie in [0, {self.processes}), got {self.process}')
