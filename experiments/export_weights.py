"""Writes the experts of a finished run for other programs: PEFT's adapters, or merged decoders.

  python -m experiments.export_weights --run runs/smollm2 --to runs/smollm2/adapter
  python -m experiments.export_weights --run runs/smollm2 --to runs/smollm2/merged --merged

An adapter folder is what PEFT loads on the base model; a merged one is a plain Hugging Face
directory. Either has, in files of its own, what else a score needs: tokenizer, readout embeddings,
heads, calibration, and beside adapters the embeddings of `tokenizer.phrases`. Where each expert has
adapters of its own, it has a subfolder of its own.
"""

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import sys
from typing import Any

from absl import app, flags, logging
import jax
import numpy as np

from experiments.setup import Run
from experiments.trained import load_trained
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.lora import merge
from jobrec_jax.recommend import TrainedExperts
from jobrec_jax.schema.files import whole_folder
from jobrec_jax.weights.families import family_of
from jobrec_jax.weights.huggingface import save_decoder
from jobrec_jax.weights.peft import save_adapter, save_heads

PyTree = Any
FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('run', None, 'a run folder with trained experts', required=True)
  flags.DEFINE_string('to', None, 'the folder to write; it must not exist yet', required=True)
  flags.DEFINE_bool('merged', False, 'fold the adapters into the decoder')


def export_adapter(experts: TrainedExperts, base_name: str, to: Path, tokenizer: Path) -> None:
  """Raises ValueError: the decoder has no adapters, or `to` holds something."""
  c = experts.model.config
  if c.decoder.lora is None:
    raise ValueError('this run trained its decoder whole and has no adapter: use --merged')
  save_adapter(to, experts.params['lora'], c.decoder.lora, c.decoder, base_name,
               _extras(experts), c.experts, [tokenizer])


def export_merged(experts: TrainedExperts, to: Path, tokenizer: Path) -> None:
  """Whole, or not at all. Raises ValueError: no family of models can express the decoder."""
  c = experts.model.config
  lora = c.decoder.lora
  decoders = {'.': experts.params['decoder']}
  if lora is not None and lora.per_expert:
    decoders = {name: merge(experts.params, lora, e) for e, name in enumerate(c.experts)}
  elif lora is not None:
    decoders = {'.': merge(experts.params, lora)}
  extras = _extras(experts)
  rows = extras.pop('phrases', None)
  with whole_folder(to) as whole:
    for name, params in decoders.items():
      params, sizes = jax.device_get(params), c.decoder
      if rows is not None:
        params, sizes = _with_phrases(params, sizes, rows, c.words)
      save_decoder(whole / name, params, sizes, family_of(sizes), [tokenizer])
    save_heads(whole, extras, c.experts)


def _with_phrases(decoder: PyTree, sizes: DecoderConfig, rows: np.ndarray,
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


def _extras(experts: TrainedExperts) -> dict:
  names = ('readouts', 'verdicts', 'phrases', *experts.model.config.experts)
  return {name: jax.device_get(experts.params[name])
          for name in names if name in experts.params} | {
      'calibration': experts.calibration}


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {list(argv[1:])}')
  logging.set_verbosity(logging.ERROR)
  run, to = Run(FLAGS.run), Path(FLAGS.to)
  try:
    if to.exists():
      raise ValueError(f'--to must name a folder that does not exist yet, got {to}')
    trained = load_trained(run)
    if FLAGS.merged:
      export_merged(trained.experts, to, run / 'tokenizer.json')
    else:
      export_adapter(trained.experts, trained.config.backbone.path, to, run / 'tokenizer.json')
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  print(f'The weights are in {to}')


if __name__ == '__main__':
  define_flags()
  app.run(main)
