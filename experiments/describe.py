"""Looks at a folder of foreign tables and writes a first schema file, each guess with a comment.

  python -m experiments.describe FOLDER
  python -m experiments.describe FOLDER --out=FILE.toml

Tables are CSV, JSON lines or Parquet. The file is written as FOLDER/schema.toml where --out names
no other; one that is there is never overwritten. Check it, then see what it reads:

  python -m experiments.audit --config=configs/tables.py --config.data.schema=FOLDER/schema.toml
"""

from collections.abc import Sequence
import shlex

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.data.tables.describe import describe
from jobrec_jax.schema.files import expanded, write_text

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('out', None, 'the schema file to write; FOLDER/schema.toml without it')


def main(argv: Sequence[str]) -> None:
  folder = expanded(argv[1])
  out = expanded(FLAGS.out) if FLAGS.out else folder / 'schema.toml'
  if out.exists():
    raise ValueError(f'--out must name a new file, got {out}, which is there; rename or delete it '
                     'to have it written anew')
  text = describe(folder)
  write_text(out, text)
  inside = out.resolve().parent == folder.resolve()
  elsewhere = '' if inside else f' --config.data.folder={shlex.quote(str(folder))}'
  print(f'{out}: check every line of it. What it reads:\n'
        '  python -m experiments.audit --config=configs/tables.py '
        f'--config.data.schema={shlex.quote(str(out))}{elsewhere}')


if __name__ == '__main__':
  define_flags()
  launch(main, ('FOLDER',))
