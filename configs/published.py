"""CSV files in the published layout, with the published sizes of lists.

  python -m experiments.train_experts --config=configs/published.py \\
      --config.data.folder=FOLDER --workdir=runs/published
"""

from configs import base


def get_config():
  c = base.get_config()
  with c.unlocked():
    c.data.source = 'published'
    c.data.drop_shared_negatives = True
    c.data.known_faults = ('first_in_list',)  # positives stand first in the files; no list keeps it
    c.experts.censoring = 'none'  # labels of all listed pairs, not of applicants
    c.tokenizer.vocab_size = 8192
    c.tokenizer.candidate = 512
    c.tokenizer.job = 192
    c.tokenizer.alignment = 32
    c.lists.qualification_negatives = 15
    c.warm_up.batch = c.cooperative.batch = 4
    c.cooperative.qualification_batch = 2
  return c
