"""Starts local processes, and tells how they ended."""

from collections.abc import Sequence
import os
from pathlib import Path
import socket
import subprocess
import sys
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
  """How a process ended, and what it said on stderr."""

  status: int
  said: list[str]


def two(command: Sequence[str], devices: int = 2) -> list[Ended]:
  """Runs a command in two processes; '{port}' and '{process}' in it are filled in.

  Nothing here ends them: that they end is what the tests are for.
  """
  return several(command, 2, devices)


def several(command: Sequence[str], processes: int, devices: int) -> list[Ended]:
  """As `two` with another number of processes."""
  return _run(command, [*range(processes)], devices)


def one(command: Sequence[str]) -> Ended:
  """Runs a command in one process of one device; '{process}' in it is empty."""
  ended, = _run(command, [''], 1)
  return ended


def _run(command: Sequence[str], which: list, devices: int) -> list[Ended]:
  flags = os.environ['XLA_FLAGS'].replace('device_count=8', f'device_count={devices}')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  started = [subprocess.Popen(
      [sys.executable, '-m', *(word.format(port=port, process=process) for word in command)],
      cwd=ROOT, env=os.environ | {'XLA_FLAGS': flags}, text=True, stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE) for process in which]
  said = [process.communicate()[1].splitlines() for process in started]
  return [Ended(process.returncode, lines) for process, lines in zip(started, said)]
