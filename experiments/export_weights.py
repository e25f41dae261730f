"""Writes the experts of a run for other programs: PEFT's adapters, or merged decoders.

  python -m experiments.export_weights --run runs/smollm2 --to runs/smollm2/adapter
  python -m experiments.export_weights --run runs/smollm2 --to runs/smollm2/merged --merged

An adapter folder is what PEFT loads on the base model; a merged one is a plain Hugging Face
directory. Either has, in files of its own, what else a score needs: tokenizer, readout embeddings,
heads, calibration, and beside adapters the embeddings of `tokenizer.phrases`. Where each expert has
adapters of its own, it has a subfolder of its own.
"""

from collections.abc import Sequence

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.pipeline.export_weights import export_weights

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('run', None, 'a run folder with trained experts', required=True)
  flags.DEFINE_string('to', None, 'the folder to write; it must not exist yet', required=True)
  flags.DEFINE_bool('merged', False, 'fold the adapters into the decoder')


def main(argv: Sequence[str]) -> None:
  del argv
  export_weights(FLAGS.run, FLAGS.to, FLAGS.merged)
  print(f'The weights are in {FLAGS.to}')


if __name__ == '__main__':
  define_flags()
  launch(main)
