"""Writes the experts of a finished run for other programs: PEFT's adapters, or merged decoders.

  python -m experiments.export_weights --run runs/smollm2 --to runs/smollm2/adapter
  python -m experiments.export_weights --run runs/smollm2 --to runs/smollm2/merged --merged

An adapter folder is what PEFT loads on the base model; a merged one is a plain Hugging Face
directory. Either has, in files of its own, what else a score needs: readout embeddings, heads,
calibration. Where each expert has adapters of its own, it has a subfolder of its own.
"""

from collections.abc import Sequence
from pathlib import Path
import sys

from absl import app, flags, logging
import jax

from experiments.setup import Run
from experiments.trained import load_trained
from jobrec_jax.models.lora import merge
from jobrec_jax.recommend import TrainedExperts
from jobrec_jax.weights.families import family_of
from jobrec_jax.weights.huggingface import save_decoder
from jobrec_jax.weights.peft import save_adapter, save_heads

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('run', None, 'a run folder with trained experts', required=True)
  flags.DEFINE_string('to', None, 'the folder to write; it must not exist yet', required=True)
  flags.DEFINE_bool('merged', False, 'fold the adapters into the decoder')


def export_adapter(experts: TrainedExperts, base_name: str, to: Path) -> None:
  """Raises ValueError: the decoder has no adapters, or `to` holds something."""
  c = experts.model.config
  if c.decoder.lora is None:
    raise ValueError('this run trained its decoder whole and has no adapter: use --merged')
  save_adapter(to, experts.params['lora'], c.decoder.lora, c.decoder, base_name,
               _extras(experts), c.experts)


def export_merged(experts: TrainedExperts, to: Path, tokenizer: Path) -> None:
  """Raises ValueError: `to` exists, or no family of models can express the decoder."""
  c = experts.model.config
  lora = c.decoder.lora
  decoders = {to: experts.params['decoder']}
  if lora is not None and lora.per_expert:
    decoders = {to / name: merge(experts.params, lora, e) for e, name in enumerate(c.experts)}
  elif lora is not None:
    decoders = {to: merge(experts.params, lora)}
  for folder, params in decoders.items():
    save_decoder(folder, jax.device_get(params), c.decoder, family_of(c.decoder), [tokenizer])
  save_heads(to, _extras(experts), c.experts)


def _extras(experts: TrainedExperts) -> dict:
  names = ('readouts', 'verdicts', *experts.model.config.experts)
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
      export_adapter(trained.experts, trained.config.backbone.path, to)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  print(f'The weights are in {to}')


if __name__ == '__main__':
  define_flags()
  app.run(main)
