"""Compiles stage 1B's step for TPUs that are not here: what a chip would hold and do.

  pip install libtpu                                           the compiler; it needs no TPU
  python -m experiments.compile_ahead --config=configs/pods.py:v5e-256 --topology=v5e:16x16 \\
      --decoder=configs/decoders/llama3_8b.json [--out=row.json]
  python -m experiments.compile_ahead ... --search --out=rows.json
      the largest batch x least computed again x mesh that fits; compiles some ten times, and the
      same command goes on

Neither data nor weights are read: shapes come from the settings, the pretrained decoder's from the
config.json that --decoder names. Memory is the compiler's; operations are those of the program as
it was traced, on padded blocks; collectives are read from the compiled program. Nothing is run, so
that nothing is said of a step's real time.
"""

from collections.abc import Sequence

from absl import flags

from jobrec_jax import command_line
from jobrec_jax.schema.files import expanded, write_json

FLAGS = flags.FLAGS


def main(argv: Sequence[str]) -> None:
  del argv
  from jobrec_jax.pipeline.compile_ahead import compile_ahead, in_words  # here: --help is soon told
  from jobrec_jax.pipeline.compile_search import search, search_in_words
  settings = command_line.config_settings()
  decoder, out = (expanded(path) if path else None for path in (FLAGS.decoder, FLAGS.out))
  if FLAGS.search:
    print(search_in_words(search(settings, FLAGS.topology, decoder, FLAGS.meshes, FLAGS.most, out)))
    return
  if FLAGS.meshes or FLAGS.most is not None:
    raise ValueError('--meshes and --most must come with --search, got none')
  row = compile_ahead(settings, FLAGS.topology, decoder)
  print(in_words(row))
  if out:
    write_json(out, row, indent=1)


if __name__ == '__main__':
  command_line.define_config('configs/base.py')
  flags.DEFINE_string('topology', '', 'the TPUs, such as v5e:16x16')
  flags.DEFINE_string('decoder', None, "config.json whose sizes stand for those of backbone.path's")
  flags.DEFINE_string('out', None, 'a JSON file for what is found')
  flags.DEFINE_bool('search', False, 'try meshes, batches and remat in place of those of --config')
  flags.DEFINE_list('meshes', [], 'what --search tries, such as 1x16x1,1x8x2 (data x fsdp x '
                    'tensor); by default those with at least half of the chips on fsdp')
  flags.DEFINE_integer('most', None, 'lists of each perspective that --search does not exceed',
                       lower_bound=1)
  command_line.launch(main)
