"""The same course of multipliers as cooper (torch) wherever both have the rule."""

import cooper
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jobrec_jax.lagrangian.ascent import dual_ascent, pid
from jobrec_jax.lagrangian.augmented import augmented_lagrangian

TYPES = {'inequality': cooper.ConstraintType.INEQUALITY, 'equality': cooper.ConstraintType.EQUALITY}
# Swings that reach the bound mu >= 0 and leave it again.
VIOLATIONS = (np.random.default_rng(0).normal(size=(80, 3))
              + np.sin(np.arange(80) / 8)[:, None]).astype(np.float32)
ZEROS, SGD = cooper.optim.nuPIInitType.ZEROS, cooper.optim.nuPIInitType.SGD


def nupi(ki, kp, nu, init_type):
  return lambda params: cooper.optim.nuPI(params, lr=1., Kp=torch.tensor(kp), Ki=torch.tensor(ki),
                                          ema_nu=nu, init_type=init_type, maximize=True)


def ours(rule, constraint, violations):
  init, update = dual_ascent(rule, constraint=constraint)
  _, course = jax.lax.scan(lambda s, v: (update(s, violation=v),) * 2, init((3,)), violations)
  return np.asarray(course.multiplier)


def theirs(optimizer, constraint, violations, xi=None):
  """The course of a cooper multiplier; xi presets nuPI's smoothed violation."""
  multiplier = cooper.multipliers.DenseMultiplier(num_constraints=3)
  multiplier.set_constraint_type(TYPES[constraint])
  dual = optimizer(multiplier.parameters())
  if xi is not None:
    dual.state[multiplier.weight]['xi'] = torch.tensor(xi)
  course = []
  for violation in violations:
    multiplier.weight.grad = torch.tensor(violation)
    dual.step()
    multiplier.post_step_()
    course.append(multiplier.weight.detach().numpy().copy())
  return np.stack(course)


@pytest.mark.parametrize('constraint', TYPES)
@pytest.mark.parametrize('rule, optimizer', [
    (0.1, lambda p: torch.optim.SGD(p, lr=0.1, maximize=True)),
    (optax.sgd(0.05, momentum=0.9),
     lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, maximize=True)),
    (optax.adam(0.05), lambda p: torch.optim.Adam(p, lr=0.05, maximize=True)),
    (pid(0.1), nupi(0.1, 0., 0., SGD)),
], ids=['sgd', 'momentum', 'adam', 'integral'])
def test_optimizers(constraint, rule, optimizer):
  found = ours(rule, constraint, VIOLATIONS)
  np.testing.assert_allclose(found, theirs(optimizer, constraint, VIOLATIONS), atol=1e-5)
  assert (found == 0).any() == (constraint == 'inequality')


@pytest.mark.parametrize('constraint', TYPES)
@pytest.mark.parametrize('kp, nu', [(0.5, 0.), (0.3, 0.9)], ids=['pi', 'nupi'])
def test_nupi_as_documented(constraint, kp, nu):
  """cooper documents xi_{-1} = e_0 for SGD; its code drops e_0, so that it is set here."""
  found = ours(pid(0.1, kp, nu=nu), constraint, VIOLATIONS)
  optimizer = nupi(0.1, kp, nu, SGD)
  np.testing.assert_allclose(
      found, theirs(optimizer, constraint, VIOLATIONS, xi=VIOLATIONS[0]), atol=1e-5)
  assert np.abs(found - theirs(optimizer, constraint, VIOLATIONS)).max() > 1e-2, (
      'cooper starts as it documents now: drop the preset')


@pytest.mark.parametrize('constraint', TYPES)
@pytest.mark.parametrize('init_type', [ZEROS, SGD])
@pytest.mark.parametrize('kp, nu', [(0.5, 0.), (0.3, 0.9)], ids=['pi', 'nupi'])
def test_nupi_untouched_from_a_first_violation_of_zero(constraint, init_type, kp, nu):
  violations = np.concatenate([np.zeros((1, 3), np.float32), VIOLATIONS])
  np.testing.assert_allclose(ours(pid(0.1, kp, nu=nu), constraint, violations),
                             theirs(nupi(0.1, kp, nu, init_type), constraint, violations),
                             atol=1e-5)


class Toy(cooper.ConstrainedMinimizationProblem):
  """min |x - 1|^2 / 2 subject to 2 x against tau."""

  def __init__(self, constraint, tau, formulation, **penalty):
    super().__init__()
    self.x, self.tau = torch.nn.Parameter(torch.zeros(3)), torch.tensor(tau)
    self.constraint = cooper.Constraint(
        constraint_type=TYPES[constraint], formulation_type=formulation,
        multiplier=cooper.multipliers.DenseMultiplier(num_constraints=3), **penalty)

  def compute_cmp_state(self):
    state = cooper.ConstraintState(violation=self.tau - 2 * self.x)
    return cooper.CMPState(((self.x - 1)**2).sum() / 2, {self.constraint: state})


@pytest.mark.parametrize('constraint', TYPES)
@pytest.mark.parametrize('rho', [None, 0.7], ids=['lagrangian', 'augmented'])
def test_whole_runs_on_a_toy_problem(constraint, rho):
  tau, formulations = np.float32([4., 1., 2.5]), cooper.formulations
  toy = Toy(constraint, tau, formulations.Lagrangian) if rho is None else Toy(
      constraint, tau, formulations.AugmentedLagrangian, penalty_coefficient=(
          cooper.penalty_coefficients.DensePenaltyCoefficient(torch.full((3,), rho))))
  optimizer = cooper.optim.SimultaneousOptimizer(
      cmp=toy, primal_optimizers=torch.optim.SGD([toy.x], lr=0.1),
      dual_optimizers=torch.optim.SGD(toy.dual_parameters(), lr=rho or 0.05, maximize=True))
  expected = []
  for _ in range(60):
    optimizer.roll()
    expected.append((toy.x.detach().numpy().copy(),
                     toy.constraint.multiplier.weight.detach().numpy().copy()))

  init, update = dual_ascent(rho or 0.05, constraint=constraint)

  def loss(x, mu):
    v = tau - 2 * x
    term = jnp.sum(mu * v) if rho is None else augmented_lagrangian(
        mu, violation=v, penalty=rho, constraint=constraint)
    return jnp.sum((x - 1)**2) / 2 + term

  def step(carry, _):
    x, state = carry
    carry = x - 0.1 * jax.grad(loss)(x, state.multiplier), update(state, violation=tau - 2 * x)
    return carry, (carry[0], carry[1].multiplier)

  _, found = jax.lax.scan(step, (jnp.zeros(3), init((3,))), None, length=60)
  for course, reference in zip(found, zip(*expected)):
    np.testing.assert_allclose(course, np.stack(reference), atol=1e-5)


@pytest.mark.parametrize('constraint', TYPES)
def test_augmented_term(constraint):
  rng = np.random.default_rng(3)
  mu, v = np.float32(rng.uniform(0, 1, 60)), np.float32(rng.normal(size=60))
  rho = np.float32(rng.uniform(0.1, 5, 60))
  term = cooper.formulations.utils.compute_primal_quadratic_augmented_contribution(
      torch.tensor(mu), torch.tensor(rho), torch.tensor(v), TYPES[constraint])
  np.testing.assert_allclose(
      augmented_lagrangian(mu, violation=v, penalty=rho, constraint=constraint), term, rtol=1e-5)
