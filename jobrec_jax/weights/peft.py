"""LoRA adapters as PEFT's folders, in and out, and beside them the parts that PEFT does not know.

| file | what it holds |
|---|---|
| adapter_config.json, adapter_model.safetensors | what `peft.PeftModel.from_pretrained` reads |
| jobrec_heads.safetensors | readouts and heads, nested names joined by `/` |
| calibration.json | b and t of the calibration |

Where every expert has adapters of its own, the first two lie in one subfolder for each expert. PEFT
keeps matrices as [outputs, inputs]: its lora_A [R, in] is our a transposed, its lora_B [out, R] our
b. It is read where the whole adapter is plain LoRA on projections of every layer of the decoder.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
from pathlib import Path
import shutil
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.lora import ATTENTION, TARGETS, LoraConfig
from jobrec_jax.schema.files import decode_json, read_object, whole_folder, write_json
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.weights.places import differences

PyTree = Any
Arrays = dict[str, np.ndarray]

CONFIG = 'adapter_config.json'
TENSORS = 'adapter_model.safetensors'
PICKLE = 'adapter_model.bin'
HEADS = 'jobrec_heads.safetensors'
CALIBRATION = 'calibration.json'
MERGE = 'or merge it into its base model with PEFT (merge_and_unload) and load that'

_MODULES = {f'{target}_proj': target for target in TARGETS}
# Keys of adapter_config.json with no say in what a trained adapter computes on its base model.
_NEUTRAL = {
  'task_type', 'auto_mapping', 'peft_version', 'base_model_name_or_path', 'revision',
  'inference_mode', 'exclude_modules', 'megatron_core', 'qalora_group_size',
}
_DEFAULTS = {'lora_dropout': 0.0, 'bias': 'none', 'use_rslora': False, 'init_lora_weights': True}


def _is_number(value: Any) -> bool:
  return type(value) in (int, float)


def _is_list_of_modules(value: Any) -> bool:
  return isinstance(value, list) and bool(value) and all(
    isinstance(name, str) and name.rpartition('.')[2] in _MODULES for name in value
  )


# Initial weights from a decomposition of the base model (PiSSA, ...) change the base model too.
_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
  'peft_type': ("'LORA'", lambda v: v == 'LORA'),
  'r': ('an integer, at least 1', lambda v: type(v) is int and v > 0),
  'lora_alpha': ('a number', _is_number),
  'lora_dropout': ('at least 0 and below 1', lambda v: _is_number(v) and 0 <= v < 1),
  'target_modules': (f'a list of some of {tuple(_MODULES)}', _is_list_of_modules),
  'bias': ("'none'", lambda v: v == 'none'),
  'use_rslora': ('true or false', lambda v: isinstance(v, bool)),
  'init_lora_weights': (
    "true, false, null, 'gaussian' or 'orthogonal'",
    lambda v: v is None or v in (True, False, 'gaussian', 'orthogonal'),
  ),
}


class Heads(NamedTuple):
  """What a score needs beside a decoder and its adapters.

  Attributes:
    extras: nested mappings of arrays, e.g. readouts and heads, and a `Calibration` under
      'calibration' if there is one.
    experts: their names in the order of E; needed where each has adapters of its own.
  """

  extras: Mapping[str, PyTree]
  experts: Sequence[str] = ()


def save_adapter(
  folder: str | Path,
  lora_params: Mapping[str, Any],
  decoder: DecoderConfig,
  base_name: str,
  heads: Heads,
  tokenizer_files: Sequence[str | Path] = (),
) -> None:
  """Writes a folder which PEFT reads (or one in each expert's subfolder): whole, or not at all.

  Args:
    folder: a new or empty one.
    lora_params: `{target}_a` [layers, in, R] and `{target}_b` [layers, R, out], with a leading axis
      E where `decoder.lora.per_expert`.
    decoder: which they adapt; its `lora` is their config.
    base_name: name or path of the base model, as PEFT's users would load it.
    heads: what lies beside them.
    tokenizer_files: copied beside the weights, such as tokenizer.json.

  Raises:
    ValueError: the decoder has no adapters; names or shapes of `lora_params` are not the config's;
      `experts` are not distinct names of subfolders or not as many as E; or the folder holds
      something.
  """
  config, experts = decoder.lora, heads.experts
  if config is None:
    raise ValueError('decoder.lora must say how adapters are applied, got None')
  _check_experts(experts)
  if config.per_expert and not experts:
    raise ValueError('experts must be one name for each expert where lora.per_expert, got none')
  arrays = {name: np.asarray(value) for name, value in lora_params.items()}
  lead = (len(experts),) if config.per_expert else ()
  expected = {name: (*lead, decoder.layers, *shape) for name, shape in _shapes(config, decoder)}
  _check_fit('lora', expected, arrays)

  with whole_folder(folder) as temporary:
    if config.per_expert:
      for e, name in enumerate(experts):
        part = {key: value[e] for key, value in arrays.items()}
        _write_adapter(temporary / name, part, config, base_name)
    else:
      _write_adapter(temporary, arrays, config, base_name)
    save_heads(temporary, heads)
    for file in map(Path, tokenizer_files):
      shutil.copyfile(file, temporary / file.name)


def save_heads(folder: Path, heads: Heads) -> None:
  """Writes them into an existing folder."""
  trees = {name: tree for name, tree in heads.extras.items() if name != 'calibration'}
  save_file(_flatten(trees), folder / HEADS, {'experts': json.dumps(list(heads.experts))})
  if 'calibration' in heads.extras:
    values = {key: float(v) for key, v in heads.extras['calibration']._asdict().items()}
    write_json(folder / CALIBRATION, values, indent=2)


def load_adapter(
  folder: str | Path, decoder: DecoderConfig, experts: Sequence[str] = ()
) -> tuple[Arrays, LoraConfig, dict[str, PyTree]]:
  """Reads what `save_adapter` wrote, or any plain LoRA adapter that PEFT saved for this decoder.

  Args:
    folder: with adapter_config.json and adapter_model.safetensors, or with such subfolders.
    decoder: which is adapted.
    experts: names of the subfolders in the order of the E axis, or of the experts who share the
      adapter. Empty: those that the folder was saved with.

  Returns:
    `lora_params` as `save_adapter` takes them, fp32; their config; and the extras, empty where
    nothing lies beside the adapter.

  Raises:
    ValueError: a file is missing or broken; the config asks for anything but plain LoRA; names or
      shapes are not those of the decoder (all of them in one error); the experts' adapters differ
      in their configs; or the folder was saved for other experts.
  """
  folder = Path(folder)
  extras, saved = _read_extras(folder)
  experts = tuple(experts)
  if saved and experts and saved != experts:
    raise ValueError(f'{folder / HEADS}: experts must be {saved!r} in this order, got {experts!r}')
  experts = experts or saved
  _check_experts(experts)
  if (folder / CONFIG).exists():
    return *_read_adapter(folder, decoder), extras
  if not experts:
    subfolders = sorted(path.parent.name for path in folder.glob(f'*/{CONFIG}'))
    raise ValueError(
        f'{folder / CONFIG}: must be a readable file, got none; or name the experts whose '
        f'subfolders hold one: {subfolders}')
  parts, configs = zip(*(_read_adapter(folder / name, decoder) for name in experts))
  for name, config in zip(experts, configs):
    if config != configs[0]:
      raise ValueError(
        f'{folder / name / CONFIG}: must be what {experts[0]} has, {configs[0]}, got {config}'
      )
  arrays = {key: np.stack([part[key] for part in parts]) for key in parts[0]}
  return arrays, dataclasses.replace(configs[0], per_expert=True), extras


def _check_experts(experts: Sequence[str]) -> None:
  plain = all(e and e != '..' and Path(e).name == e for e in experts)
  if not plain or len(set(experts)) < len(experts):
    raise ValueError(f'experts must be distinct names of subfolders, got {tuple(experts)!r}')


def _shapes(config: LoraConfig, decoder: DecoderConfig) -> list[tuple[str, tuple[int, int]]]:
  """Names and shapes of one layer's parameters."""
  shapes = []
  for target in config.targets:
    inputs, outputs = decoder.projection_sizes[target]
    shapes += [(f'{target}_a', (inputs, config.rank)), (f'{target}_b', (config.rank, outputs))]
  return shapes


def _check_fit(
  place: str, expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]
) -> None:
  wrong = differences(expected, {name: x.shape for name, x in arrays.items()})
  if wrong:
    raise ValueError(f'{place}: names and shapes must be those of the config and the decoder'
                     f'{wrong}')


def _tensor_name(layer: int, name: str) -> str:
  target, part = name.rsplit('_', 1)
  home = 'self_attn' if target in ATTENTION else 'mlp'
  return f'layers.{layer}.{home}.{target}_proj.lora_{part.upper()}.weight'


def _write_adapter(folder: Path, arrays: Arrays, config: LoraConfig, base_name: str) -> None:
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
    f'base_model.model.model.{_tensor_name(layer, name)}': np.ascontiguousarray(matrix.T)
    for name, value in arrays.items() for layer, matrix in enumerate(value)
  }
  save_file(tensors, folder / TENSORS, {'format': 'pt'})


def _read_adapter(folder: Path, decoder: DecoderConfig) -> tuple[Arrays, LoraConfig]:
  config = _read_config(folder / CONFIG)
  path = folder / TENSORS
  if not path.exists() and (folder / PICKLE).exists():
    raise ValueError(
      f'{folder / PICKLE}: must be {TENSORS}, got a pickle, which can run code; if you trust it, '
      'load it with PEFT and save it with save_pretrained(..., safe_serialization=True)'
    )
  tensors, _ = _read_tensors(path)
  names, got, repeated = {}, {}, []
  for name, tensor in tensors.items():
    short = name.removeprefix('base_model.model.').removeprefix('model.')
    short = short.replace('.default.weight', '.weight')
    if short in got:
      repeated.append(f'{name}: repeats {names[short]}')
    names[short], got[short] = name, tensor
  if repeated:
    raise ValueError('\n'.join([f'{path}: must hold every matrix once', *repeated]))
  shapes = dict(_shapes(config, decoder))
  expected = {
    _tensor_name(layer, name): shape[::-1]
    for name, shape in shapes.items() for layer in range(decoder.layers)
  }
  _check_fit(str(path), expected, got)
  return {
    name: np.stack([
      got[_tensor_name(layer, name)].T.astype(np.float32) for layer in range(decoder.layers)
    ])
    for name in shapes
  }, config


def _read_config(path: Path) -> LoraConfig:
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
    raise ValueError('\n'.join([f'{path}: must be a plain LoRA adapter, {MERGE}', *problems]))
  modules = {_MODULES[name.rpartition('.')[2]] for name in values['target_modules']}
  return LoraConfig(
    rank=values['r'],
    alpha=float(values['lora_alpha']),
    dropout=float(values['lora_dropout']),
    targets=tuple(target for target in TARGETS if target in modules),
    rank_stabilised=values['use_rslora'],
  )


def _read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
  """The arrays and the metadata of a safetensors file."""
  try:
    with safe_open(path, 'np') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
  except (OSError, SafetensorError, AttributeError) as error:  # the last: a dtype NumPy has not
    raise ValueError(f'{path}: must be a readable safetensors file, got {error}') from error


def _flatten(trees: Mapping[str, PyTree]) -> Arrays:
  flat = {key: np.asarray(value, order='C') for key, value in flatten_dict(dict(trees)).items()}
  wrong = ['.'.join(key) for key, value in flat.items()
           if value.dtype == object or any('/' in part for part in key)]
  if wrong:
    raise ValueError(f"extras must be arrays under names without '/', got {wrong}")
  return {'/'.join(key): value for key, value in flat.items()}


def _read_extras(folder: Path) -> tuple[dict[str, PyTree], tuple[str, ...]]:
  """The extras, and the experts that they were saved with."""
  extras, experts = {}, ()
  if (folder / HEADS).exists():
    arrays, metadata = _read_tensors(folder / HEADS)
    extras = unflatten_dict(arrays, sep='/')
    experts = _saved_experts(folder / HEADS, metadata.get('experts', '[]'))
  if (folder / CALIBRATION).exists():
    values = read_object(folder / CALIBRATION)
    if values.keys() != {'b', 't'} or not all(map(_is_number, values.values())):
      raise ValueError(f'{folder / CALIBRATION}: must hold numbers b and t, got {values!r}')
    extras['calibration'] = Calibration(**values)
  return extras, experts


def _saved_experts(path: Path, text: str) -> tuple[str, ...]:
  try:
    names = decode_json(text)
  except ValueError as error:
    raise ValueError(f'{path}: experts must be JSON, got: {error}') from error
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise ValueError(f'{path}: experts must be an array of names, got {text[:80]}')
  return tuple(names)
