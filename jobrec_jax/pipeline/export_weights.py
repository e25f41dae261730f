"""The experts of a run for other programs: PEFT's adapters, or merged decoders."""

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import tempfile
from typing import Any

import jax
import numpy as np

from jobrec_jax.data.tokens import save_tokenizer
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.lora import merge
from jobrec_jax.pipeline.artefacts import save_params
from jobrec_jax.pipeline.load import load_experts, opened
from jobrec_jax.pipeline.record import read_record
from jobrec_jax.pipeline.text import COMPONENTS, TOKENIZER
from jobrec_jax.schema.files import expanded
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.weights.families import family_of
from jobrec_jax.weights.huggingface import save_decoder
from jobrec_jax.weights.peft import Heads, save_adapter, save_heads

PyTree = Any


def export_weights(run: str | Path, to: str | Path, merged: bool) -> None:
  """Writes a new folder, whole or not at all.

  Raises:
    ValueError: `to` exists, the run has no trained experts or no adapters, or no family of models
      can express the decoder.
  """
  to = expanded(to)
  if to.exists():
    raise ValueError(f'--to must name a folder that does not exist yet, got {to}')
  with opened(run) as source, tempfile.TemporaryDirectory() as folder:
    experts, calibration = load_experts(source)
    text = [Path(folder) / TOKENIZER]
    save_tokenizer(experts.tokenizer, text[0])
    if experts.components is not None:
      text.append(Path(folder) / COMPONENTS)
      save_params(text[1], experts.components.arrays)
    if merged:
      export_merged(experts, calibration, to, text)
    else:
      base = read_record(source)['settings']['backbone']['path']
      export_adapter(experts, calibration, base, to, text)


def export_adapter(experts: Experts, calibration: Calibration, base_name: str, to: Path,
                   text: Sequence[Path]) -> None:
  """Raises ValueError: the run has no pretrained decoder to adapt, or `to` holds something."""
  c = experts.model.config
  if not base_name:
    raise ValueError('this run trained its decoder itself, and adapters alone say nothing without '
                     'it: use --merged')
  save_adapter(to, experts.params['lora'], c.decoder, base_name,
               Heads(extras(experts, calibration), c.experts), text)


def export_merged(experts: Experts, calibration: Calibration, to: Path,
                  text: Sequence[Path]) -> None:
  """Whole, or not at all. Raises ValueError: no family of models can express the decoder."""
  c = experts.model.config
  lora = c.decoder.lora
  decoders = {'.': experts.params['decoder']}
  if lora is not None and lora.per_expert:
    decoders = {name: merge(experts.params, lora, e) for e, name in enumerate(c.experts)}
  elif lora is not None:
    decoders = {'.': merge(experts.params, lora)}
  more = extras(experts, calibration)
  rows = more.pop('phrases', None)
  to.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f'.{to.name}.', dir=to.parent) as folder:
    whole = Path(folder) / 'export'
    for name, params in decoders.items():
      params, sizes = jax.device_get(params), c.decoder
      if rows is not None:
        params, sizes = with_phrases(params, sizes, rows, c.words)
      save_decoder(whole / name, params, sizes, family_of(sizes), text)
    save_heads(whole, Heads(more, c.experts))
    whole.rename(to)


def with_phrases(decoder: PyTree, sizes: DecoderConfig, rows: np.ndarray,
                 words: int) -> tuple[PyTree, DecoderConfig]:
  """The phrases' embeddings in the decoder's table, from row `words` on. No logit is theirs."""
  more = max(0, words + len(rows) - sizes.vocab_size)
  dtype = decoder['layers']['attention']['q']['kernel'].dtype  # fp32 where it was quantised
  table = np.pad(decoder['embedding'].astype(dtype), ((0, more), (0, 0)))
  table[words:words + len(rows)] = rows
  decoder = decoder | {'embedding': table}
  if 'lm_head' in decoder:
    decoder['lm_head'] = np.pad(decoder['lm_head'], ((0, 0), (0, more)))
  return decoder, dataclasses.replace(sizes, vocab_size=sizes.vocab_size + more)


def extras(experts: Experts, calibration: Calibration) -> dict[str, Any]:
  """What else a score needs: all parameters beside decoder and adapters, and the calibration."""
  return {name: jax.device_get(part) for name, part in experts.params.items()
          if name not in ('decoder', 'lora')} | {'calibration': calibration}
