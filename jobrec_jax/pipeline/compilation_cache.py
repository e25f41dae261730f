"""Where compiled programs outlive the process."""

import os
from pathlib import Path


def use_compilation_cache() -> None:
  """Compiled programs, small ones too, outlive the process: in the user's cache, or where
  JAX_COMPILATION_CACHE_DIR says."""
  import jax  # here, so that a script can ask for help before JAX is loaded
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    jax.config.update('jax_compilation_cache_dir', str(Path.home() / '.cache/jobrec_jax/jit'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
