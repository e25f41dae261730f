"""Collectives in a compiled program, read from its HLO text: what, how many bytes, how often."""

from collections.abc import Iterator, Mapping
import math
import re
from typing import NamedTuple

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute',
         'collective-broadcast', 'ragged-all-to-all')
_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16, 'f8e4m3fn': 8, 'f8e5m2': 8,
         **{f'{kind}{bits}': bits for kind in 'suf' for bits in (8, 16, 32, 64)}, 'c64': 64}
_HEADER = re.compile(r'^(?:ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$')
_SHAPE = re.compile(r'\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]')
_OPERATION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$')
_CALLED = re.compile(r'\b(?:calls|to_apply|condition|body|true_computation|false_computation|'
                     r'branch_computations|called_computations|async_computation)='
                     r'(\{[^}]*\}|%?[\w.-]+)')


class Collective(NamedTuple):
  """One exchange between devices.

  Attributes:
    kind: one of `KINDS`.
    shapes: the sizes of what it gives a device, of each array.
    bytes: on one device, once: of what an all-gather gives, of what another one takes.
    loops: how many loops it stands in.
    times: turns of these loops together; a loop whose turns the text does not tell counts once.
  """

  kind: str
  shapes: tuple[tuple[int, ...], ...]
  bytes: int
  loops: int
  times: int


class _Operation(NamedTuple):
  name: str
  shape: str
  code: str
  rest: str


def collectives(text: str) -> list[Collective]:
  """The collectives of a program.

  The parts of an asynchronous one share its channel, or are a start and a done, and count once. An
  all-reduce of whose sum a device keeps its part is a reduce-scatter, as TPU compilers write it.

  Args:
    text: as `jax.stages.Compiled.as_text` gives it.
  """
  bodies = dict(_computations(text))
  if not bodies:
    return []
  entry = re.search(r'^ENTRY %?([\w.-]+)', text, re.M).group(1)
  places = _places(bodies, entry)
  found: dict[str, Collective] = {}
  for computation, (loops, times) in places.items():
    shapes = {o.name: o.shape for o in bodies[computation]}
    for operation in bodies[computation]:
      kind = operation.code.removesuffix('-start')
      if kind not in KINDS:
        continue
      channel = re.search(r'channel_id=(\d+)', operation.rest)
      at = f'{kind} {channel.group(1)}' if channel else f'{computation} {operation.name}'
      taken = _bytes(' '.join(shapes.get(name, '') for name in _operands(operation.rest)))
      given = _bytes(operation.shape)
      if operation.code.endswith('-start') and kind != 'all-reduce':
        given = max(given - taken, 0)  # its shape names what it takes, too
      if kind == 'all-reduce' and 'reduce-scatter' in computation:
        kind = 'reduce-scatter'
      found.setdefault(at, Collective(kind, _sizes(operation.shape), max(given, taken), loops,
                                      times))
  return list(found.values())


def _computations(text: str) -> Iterator[tuple[str, list[_Operation]]]:
  """Of each computation its name and its operations."""
  name, body = '', []
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      name, body = header.group(1), []
    elif line.startswith('}') and not line.startswith('}}') and name:  # that ends an attribute
      yield name, body
      name = ''
    elif name:
      match = _OPERATION.match(line)
      if match:
        body.append(_Operation(*match.groups()))


def _places(bodies: Mapping[str, list[_Operation]], entry: str) -> dict[str, tuple[int, int]]:
  """Of each computation that runs, in how many loops, and their turns: the most of its callers."""
  found, left = {entry: (0, 1)}, [entry]
  while left:
    caller = left.pop()
    loops, times = found[caller]
    for operation in bodies.get(caller, ()):
      inner = loops, times
      if operation.code == 'while':
        condition = re.search(r'condition=%?([\w.-]+)', operation.rest).group(1)
        inner = loops + 1, times * _turns(operation, bodies.get(condition, ()))
      for names in _CALLED.findall(operation.rest):
        for name in re.findall(r'[\w.-]+', names):
          if name in bodies and inner > found.get(name, (-1, 0)):
            found[name] = inner
            left.append(name)
  return found


def _turns(loop: _Operation, condition: list[_Operation]) -> int:
  """How often a loop turns: as the compiler notes, or by the bound of a counter from 0 on."""
  noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
  if noted:
    return int(noted.group(1))
  bounds = [o.rest.split(')')[0] for o in condition if o.code == 'constant']
  less = any('direction=LT' in o.rest for o in condition)
  return int(bounds[0]) if less and len(bounds) == 1 and bounds[0].isdigit() else 1


def _operands(rest: str) -> list[str]:
  """Names before the bracket that ends them."""
  depth = 1
  for i, letter in enumerate(rest):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return re.findall(r'%([\w.-]+)', rest[:i])
  return []


def _sizes(shape: str) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(map(int, filter(None, sizes.split(',')))) for kind, sizes in
               _SHAPE.findall(shape) if kind in _BITS)


def _bytes(shape: str) -> int:
  """Of an array, or of all in a tuple."""
  return sum(_BITS[kind] * math.prod(map(int, filter(None, sizes.split(',')))) // 8
             for kind, sizes in _SHAPE.findall(shape) if kind in _BITS)
