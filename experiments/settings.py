"""Finds settings: every key whose name or comment holds a word, with its default and its range.

  python -m experiments.settings negatives
  python -m experiments.settings policy.        a section
"""

from collections.abc import Sequence

from jobrec_jax.command_line import launch
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.describe_settings import settings_with


def main(argv: Sequence[str]) -> None:
  print(settings_with(Settings, argv[1]))


if __name__ == '__main__':
  launch(main, ('WORD',))
