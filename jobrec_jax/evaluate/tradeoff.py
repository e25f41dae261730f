"""How much preference a family of rankings keeps at a given eligibility, whatever it was asked for.

Two policies with requirements of their own are compared where their rankings are equally eligible.
Of rankings 1 to K with true eligibility x_k and true preference y_k, those between two neighbours
are had by drawing one of the two for each list, so that (x, y) runs along the line between them:

  kept(e) = max { y(t) : x(t) ≥ e },  t along the lines from 1 to 2, 2 to 3, ..., K - 1 to K.

Where x rises and y falls this is linear interpolation at x = e. A family that begins above e keeps
what it has at its beginning, and one that never reaches e keeps nothing that could be compared.
"""

from collections.abc import Mapping

import numpy as np


def kept_preference(eligibility: np.ndarray, preference: np.ndarray, at: np.ndarray) -> np.ndarray:
  """kept(e) of several families, each of K rankings.

  With x, y and e means over lists, its jackknife leaves a group out of them and takes the maximum
  anew. To first order, where e lies on the line from k to k + 1 at t = (e − x_k) / (x_(k+1) − x_k),
  with the slope b = (y_(k+1) − y_k) / (x_(k+1) − x_k), that is the delta method:

    ψ = (1 − t) (ψ_y,k − b ψ_x,k) + t (ψ_y,k+1 − b ψ_x,k+1) + b ψ_e.

  Args:
    eligibility: [R, K] x.
    preference: [R, K] y.
    at: [R, S] e.

  Returns:
    [R, S]; nan where no ranking of a family is so eligible.
  """
  x, y = (np.asarray(v, np.float64)[:, None] for v in (eligibility, preference))  # [R, 1, K]
  e = np.asarray(at, np.float64)[:, :, None]                                      # [R, S, 1]
  corners = np.where(x >= e, y, -np.inf)
  (x0, x1), (y0, y1) = ((v[..., :-1], v[..., 1:]) for v in (x, y))
  crosses = (x0 - e) * (x1 - e) < 0
  t = (e - x0) / np.where(crosses, x1 - x0, 1.0)
  between = np.where(crosses, y0 + t * (y1 - y0), -np.inf)
  best = np.concatenate([corners, between], axis=-1).max(-1)
  return np.where(np.isfinite(best), best, np.nan)


def preference_lost(eligibility: Mapping[str, np.ndarray], preference: Mapping[str, np.ndarray],
                    at: str, bound: str) -> dict[str, np.ndarray]:
  """What families of rankings lose against a bound, at the eligibilities of one of them.

    lost(e) = kept by the bound at e − kept by the family at e,  e = x_k of the family `at`.

  Args:
    eligibility, preference: by family [R, K].
    at: the family whose eligibilities are taken, T of them.
    bound: the family that is compared with.

  Returns:
    [R, T] by family but the bound; nan where a family is nowhere so eligible.
  """
  e = np.asarray(eligibility[at])
  best = kept_preference(eligibility[bound], preference[bound], e)
  return {name: best - kept_preference(eligibility[name], preference[name], e)
          for name in eligibility if name != bound}
