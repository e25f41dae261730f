"""One LoRA adapter as PEFT keeps it in a folder, in and out.

PEFT keeps matrices as [outputs, inputs]: its lora_A [R, in] is our a transposed, its lora_B
[out, R] our b. Ours have one rank and one scale, in every layer. Where an adapter's differ from
module to module, ours is the greatest rank, filled up with zeros, and b takes the quotient of the
scales; where a layer has none, both matrices are zeros. Nothing of what it computes changes.
"""

from collections.abc import Callable, Mapping
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.lora import ATTENTION, TARGETS, LoraConfig
from jobrec_jax.schema.files import read_object, write_json
from jobrec_jax.weights.places import HEAD, UNUSED, differences

Arrays = dict[str, np.ndarray]
Module = tuple[int, str]  # a layer, and one of `TARGETS`

CONFIG = 'adapter_config.json'
TENSORS = 'adapter_model.safetensors'
PICKLE = 'adapter_model.bin'
MERGE = 'merge it into its base model with PEFT (merge_and_unload) and load that'

_MODULES = {f'{target}_proj': target for target in TARGETS}
# Keys of adapter_config.json with no say in what a trained adapter computes on its base model, or
# none that its tensors do not tell.
_NEUTRAL = {
  'task_type', 'auto_mapping', 'peft_version', 'base_model_name_or_path', 'revision',
  'inference_mode', 'exclude_modules', 'megatron_core', 'qalora_group_size', 'modules_to_save',
  'layers_pattern', 'ensure_weight_tying', 'runtime_config', 'eva_config', 'unsloth_fixed',
}
_DEFAULTS = {'lora_dropout': 0.0, 'bias': 'none', 'use_rslora': False, 'init_lora_weights': True}


def _is_number(value: Any) -> bool:
  return type(value) in (int, float)


def _is_whole(value: Any, least: int) -> bool:
  return type(value) is int and value >= least


def _are_modules(value: Any) -> bool:
  if isinstance(value, str):  # a regular expression
    return bool(value)
  return isinstance(value, list) and bool(value) and all(
    isinstance(name, str) and name.rpartition('.')[2] in _MODULES for name in value
  )


def _is_pattern(value: Any, check: Callable[[Any], bool]) -> bool:
  if not isinstance(value, dict):
    return value is None
  try:
    return all(re.compile(key) and check(own) for key, own in value.items())
  except re.error:
    return False


def _are_layers(value: Any) -> bool:
  one = value is None or _is_whole(value, 0)
  return one or (isinstance(value, list) and all(_is_whole(i, 0) for i in value))


# Initial weights from a decomposition of the base model (PiSSA, ...) change the base model too.
_STARTS = (True, False, 'gaussian', 'orthogonal', 'eva')
_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
  'peft_type': ("'LORA'", lambda v: v == 'LORA'),
  'r': ('an integer, at least 1', lambda v: _is_whole(v, 1)),
  'lora_alpha': ('a number', _is_number),
  'lora_dropout': ('at least 0 and below 1', lambda v: _is_number(v) and 0 <= v < 1),
  'target_modules': (f'a list of some of {tuple(_MODULES)}, or a regular expression', _are_modules),
  'bias': ("'none'", lambda v: v == 'none'),
  'use_rslora': ('true or false', lambda v: isinstance(v, bool)),
  'rank_pattern': ('expressions for modules, with their ranks',
                   lambda v: _is_pattern(v, lambda rank: _is_whole(rank, 1))),
  'alpha_pattern': ('expressions for modules, with their alphas',
                    lambda v: _is_pattern(v, _is_number)),
  'layers_to_transform': ('a layer or a list of them', _are_layers),
  'init_lora_weights': (
    f'null or one of {_STARTS}', lambda v: v is None or v in _STARTS),
}


class _Own(NamedTuple):
  """What a module's update has of its own: its rank, and the factor of a b."""

  rank: int
  scale: float


def shapes(config: LoraConfig, decoder: DecoderConfig) -> list[tuple[str, tuple[int, int]]]:
  """Names and shapes of one layer's parameters."""
  out = []
  for target in config.targets:
    inputs, outputs = decoder.projection_sizes[target]
    out += [(f'{target}_a', (inputs, config.rank)), (f'{target}_b', (config.rank, outputs))]
  return out


def write_adapter(folder: Path, arrays: Arrays, config: LoraConfig, base_name: str) -> None:
  """Writes into a folder, which is made where it is not there."""
  folder.mkdir(exist_ok=True)
  write_json(folder / CONFIG, {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base_name,
    'inference_mode': True,
    'r': config.rank,
    'lora_alpha': config.alpha,
    'lora_dropout': config.dropout,
    'target_modules': [f'{target}_proj' for target in config.targets],
    'bias': 'none',
    'use_rslora': config.rank_stabilised,
  }, indent=2)
  tensors = {
    f'base_model.model.model.{_tensor_name((layer, name[:-2]), name[-1].upper())}':
      np.ascontiguousarray(matrix.T)
    for name, value in arrays.items() for layer, matrix in enumerate(value)
  }
  save_file(tensors, folder / TENSORS, {'format': 'pt'})


def read_adapter(folder: Path, decoder: DecoderConfig) -> tuple[Arrays, LoraConfig]:
  """`{target}_a` [layers, in, R] and `{target}_b` [layers, R, out], fp32, and their config.

  Raises:
    ValueError: a file is missing or broken, or the adapter is not one of the decoder.
  """
  values = _read_config(folder / CONFIG)
  path = folder / TENSORS
  if not path.exists() and (folder / PICKLE).exists():
    raise ValueError(
      f'{folder / PICKLE}: must be {TENSORS}, got a pickle, which can run code; if you trust it, '
      'load it with PEFT and save it with save_pretrained(..., safe_serialization=True)'
    )
  got = _by_short_name(path)
  own = {module: _own(values, module)
         for module in _modules(folder / CONFIG, values, decoder, got)}
  _check_tensors(path, own, decoder, got)
  config = LoraConfig(
    rank=max(its.rank for its in own.values()),
    # Any scale above 0 does, for b takes the quotient.
    alpha=float(values['lora_alpha'] if values['lora_alpha'] > 0 else 1),
    dropout=float(values['lora_dropout']),
    targets=tuple(target for target in TARGETS if target in {m[1] for m in own}),
    rank_stabilised=values['use_rslora'],
  )
  arrays = {name: np.zeros((decoder.layers, *shape), np.float32)
            for name, shape in shapes(config, decoder)}
  for (layer, target), its in own.items():
    a, b = (got[_tensor_name((layer, target), part)].T.astype(np.float32) for part in 'AB')
    if its.scale != config.scale:
      b *= its.scale / config.scale
    arrays[f'{target}_a'][layer, :, :its.rank] = a
    arrays[f'{target}_b'][layer, :its.rank] = b
  return arrays, config


def _read_config(path: Path) -> dict[str, Any]:
  values = {**_DEFAULTS, **read_object(path)}
  problems = [
    f'{key} must be {allowed}, got {values.get(key)!r}'
    for key, (allowed, check) in _CHECKS.items() if not check(values.get(key))
  ]
  # Also what later versions of PEFT add: they leave it unset where it is not in use.
  problems += [
    f'{key} must be unset, got {value!r}' for key, value in sorted(values.items())
    if value and key not in _CHECKS and key not in _NEUTRAL
  ]
  if problems:
    raise ValueError('\n'.join([f'{path}: must be a plain LoRA adapter, or {MERGE}', *problems]))
  return values


def _by_short_name(path: Path) -> Arrays:
  """The tensors without the names of what wraps the model, and without unused heads."""
  tensors, _ = read_tensors(path)
  names, got, repeated = {}, {}, []
  for name, tensor in tensors.items():
    short = name.removeprefix('base_model.model.').removeprefix('_orig_mod.')
    short = short.removeprefix('model.').replace('.default.weight', '.weight')
    if short in got:
      repeated.append(f'{name}: repeats {names[short]}')
    names[short], got[short] = name, tensor
  if repeated:
    raise ValueError('\n'.join([f'{path}: must hold every matrix once', *repeated]))
  return {name: tensor for name, tensor in got.items() if not UNUSED.search(name)}


def _modules(path: Path, values: Mapping[str, Any], decoder: DecoderConfig,
             got: Arrays) -> list[Module]:
  """Those that are adapted: the config's, or where it has an expression those that are there.

  Raises:
    ValueError: there are none, or a layer is not the decoder's.
  """
  targets, layers = values['target_modules'], values.get('layers_to_transform')
  layers = [layers] if isinstance(layers, int) else layers or range(decoder.layers)
  if max(layers) >= decoder.layers:
    raise ValueError(f'{path}: layers_to_transform must be below the {decoder.layers} layers of '
                     f'the decoder, got {max(layers)}')
  every = [(i, target) for i in sorted(set(layers)) for target in TARGETS]
  if isinstance(targets, str) or values.get('exclude_modules'):
    found = [m for m in every if any(_tensor_name(m, part) in got for part in 'AB')]
  else:
    found = [m for m in every if any(f'.{_name(m)}'.endswith(f'.{t}') for t in targets)]
  if not found:
    raise ValueError(f'{path}: target_modules must name projections of the decoder that have '
                     f'adapters, got {targets!r}')
  return found


def _name(module: Module) -> str:
  layer, target = module
  return f'model.layers.{layer}.{"self_attn" if target in ATTENTION else "mlp"}.{target}_proj'


def _tensor_name(module: Module, part: str) -> str:
  return f'{_name(module).removeprefix("model.")}.lora_{part}.weight'


def _own(values: Mapping[str, Any], module: Module) -> _Own:
  """The module's rank and scale, of the first patterns that fit its name."""

  def read(patterns: str, other: str) -> Any:
    found = (values.get(patterns) or {}).items()
    return next((own for key, own in found if re.match(rf'(.*\.)?({key})$', _name(module))),
                values[other])

  rank = read('rank_pattern', 'r')
  return _Own(rank, read('alpha_pattern', 'lora_alpha') / (
      math.sqrt(rank) if values['use_rslora'] else rank))


def _check_tensors(path: Path, own: Mapping[Module, _Own], decoder: DecoderConfig,
                   got: Arrays) -> None:
  expected = {}
  for module, its in own.items():
    inputs, outputs = decoder.projection_sizes[module[1]]
    expected[_tensor_name(module, 'A')] = its.rank, inputs
    expected[_tensor_name(module, 'B')] = outputs, its.rank
  wrong = differences(expected, {name: x.shape for name, x in got.items()})
  table = [name for name in got if 'embed_tokens' in name or name.startswith(HEAD.split('.')[0])]
  if table:
    wrong += f'\n  embeddings of its own, which change the base model: {MERGE}'
  if wrong:
    raise ValueError(f'{path}: names and shapes must be those of the config and the decoder{wrong}')


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
  """The arrays and the metadata of a safetensors file; a ValueError where it is none."""
  try:
    with safe_open(path, 'np') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
  except (OSError, SafetensorError, AttributeError) as error:  # the last: a dtype NumPy has not
    raise ValueError(f'{path}: must be a readable safetensors file, got {error}') from error
