"""LoRA adapters as PEFT's folders, in and out, and beside them the parts that PEFT does not know.

| file | what it holds |
|---|---|
| adapter_config.json, adapter_model.safetensors | what `peft.PeftModel.from_pretrained` reads |
| jobrec_heads.safetensors | readouts and heads, nested names joined by `/`; its `activation` |
| calibration.json | b and t of the calibration |
| tokenizer.json, components.safetensors | what experts read texts with, where it was given |

Where every expert has adapters of its own, the first two lie in one subfolder for each expert.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
import shutil
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
import numpy as np
from safetensors.numpy import save_file

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.experts import ACTIVATION
from jobrec_jax.models.lora import TARGETS, LoraConfig
from jobrec_jax.schema.files import decode_json, expanded, read_object, whole_folder, write_json
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.weights.peft_adapter import (
  CONFIG,
  Arrays,
  read_adapter,
  read_tensors,
  shapes,
  write_adapter,
)
from jobrec_jax.weights.places import differences

PyTree = Any

HEADS = 'jobrec_heads.safetensors'
CALIBRATION = 'calibration.json'


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
  wrong = differences(
    {name: (*lead, decoder.layers, *shape) for name, shape in shapes(config, decoder)},
    {name: x.shape for name, x in arrays.items()})
  if wrong:
    raise ValueError(f'lora: names and shapes must be those of the config and the decoder{wrong}')

  with whole_folder(folder) as temporary:
    if config.per_expert:
      for e, name in enumerate(experts):
        part = {key: value[e] for key, value in arrays.items()}
        write_adapter(temporary / name, part, config, base_name)
    else:
      write_adapter(temporary, arrays, config, base_name)
    save_heads(temporary, heads)
    for file in map(Path, tokenizer_files):
      shutil.copyfile(file, temporary / file.name)


def save_heads(folder: Path, heads: Heads) -> None:
  """Writes them into an existing folder."""
  trees = {name: tree for name, tree in heads.extras.items() if name != 'calibration'}
  save_file(_flatten(trees), folder / HEADS, {'experts': json.dumps(list(heads.experts)),
                                              'activation': ACTIVATION})
  if 'calibration' in heads.extras:
    values = {key: float(v) for key, v in heads.extras['calibration']._asdict().items()}
    write_json(folder / CALIBRATION, values, indent=2)


def load_adapter(
  folder: str | Path, decoder: DecoderConfig, experts: Sequence[str] = ()
) -> tuple[Arrays, LoraConfig, dict[str, PyTree]]:
  """Reads what `save_adapter` wrote, or any LoRA adapter that PEFT saved for this decoder.

  Args:
    folder: with adapter_config.json and adapter_model.safetensors, or with such subfolders.
    decoder: which is adapted.
    experts: names of the subfolders in the order of the E axis, or of the experts who share the
      adapter. Empty: those that the folder was saved with.

  Returns:
    `lora_params` as `save_adapter` takes them, fp32; their config; and the extras, empty where
    nothing lies beside the adapter.

  Raises:
    ValueError: a file is missing or broken; the config asks for more than LoRA; names or
      shapes are not those of the decoder (all of them in one error); the experts' adapters differ
      in their configs; or the folder was saved for other experts.
  """
  folder = expanded(folder)
  extras, saved = _read_extras(folder)
  experts = tuple(experts)
  if saved and experts and saved != experts:
    raise ValueError(f'{folder / HEADS}: experts must be {saved!r} in this order, got {experts!r}')
  experts = experts or saved
  _check_experts(experts)
  if (folder / CONFIG).exists():
    return *read_adapter(folder, decoder), extras
  if not experts:
    subfolders = sorted(path.parent.name for path in folder.glob(f'*/{CONFIG}'))
    raise ValueError(
        f'{folder / CONFIG}: must be a readable file, got none; or name the experts whose '
        f'subfolders hold one: {subfolders}')
  parts, configs = zip(*(read_adapter(folder / name, decoder) for name in experts))
  for name, config in zip(experts, configs):
    if config != configs[0]:
      raise ValueError(
        f'{folder / name / CONFIG}: must be what {experts[0]} has, {configs[0]}, got {config}'
      )
  arrays = {key: np.stack([part[key] for part in parts]) for key in parts[0]}
  return arrays, dataclasses.replace(configs[0], per_expert=True), extras


def start_from(folder: str | Path, decoder: DecoderConfig, experts: Sequence[str]) -> Arrays:
  """An adapter as parameters of `decoder.lora`, for training to go on from.

  One that experts share is taken for each where each has its own; b takes the quotient of the
  scales.

  Raises:
    ValueError: it cannot be read, see `load_adapter`, or has another rank or other targets.
  """
  folder, want = expanded(folder), decoder.lora
  arrays, found, _ = load_adapter(folder, decoder, experts)
  own = want.per_expert and not found.per_expert
  for key, allowed, got in (
      ('rank', found.rank, want.rank),
      ('targets', found.targets, tuple(t for t in TARGETS if t in want.targets)),
      ('per_expert', found.per_expert or want.per_expert, want.per_expert)):
    if got != allowed:
      raise ValueError(f'lora.{key} must be {allowed!r}, as in {folder}, got {got!r}')
  factor = found.scale / want.scale if want.scale else 1.0
  arrays = {name: x * np.float32(factor) if name.endswith('_b') else x
            for name, x in arrays.items()}
  return {name: np.stack([x] * len(experts)) if own else x for name, x in arrays.items()}


def _check_experts(experts: Sequence[str]) -> None:
  plain = all(e and e != '..' and Path(e).name == e for e in experts)
  if not plain or len(set(experts)) < len(experts):
    raise ValueError(f'experts must be distinct names of subfolders, got {tuple(experts)!r}')


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
    arrays, metadata = read_tensors(folder / HEADS)
    extras = unflatten_dict(arrays, sep='/')
    experts = _saved_experts(folder / HEADS, metadata.get('experts', '[]'))
  if (folder / CALIBRATION).exists():
    values = read_object(folder / CALIBRATION)
    if values.keys() != {'b', 't'} or not all(type(v) in (int, float) for v in values.values()):
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
