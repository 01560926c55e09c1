"""An independent implementation as oracle: torchopt's implicit differentiation, by its own linear solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from networks import BUILDS, Case

torchopt = pytest.importorskip("torchopt", reason="torchopt is not installed: no independent oracle")
pytestmark = pytest.mark.filterwarnings("ignore:We.ve integrated functorch:FutureWarning")  # its own calls


def theirs(case: Case, solve: Callable[..., Any]) -> Tensor:
    """The hypergradient where the gradient of the lower loss is taken for zero, as at an optimum."""

    def stationary(w: Tensor, arch: Tensor) -> Tensor:
        gradient: Tensor = torch.func.grad(lambda w, arch: case.loss(case.named(w), {"arch": arch}))(w, arch)
        return gradient

    @torchopt.diff.implicit.custom_root(stationary, argnums=1, solve=solve)
    def solved(w: Tensor, arch: Tensor) -> Tensor:
        return w

    return torch.autograd.grad(case.upper(case.named(solved(case.flat, case.arch))), case.arch)[0]


# The Hessian has eigenvalues down to -1.2; a smaller damping would leave it indefinite.


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(BUILDS["adam"], warm=3)


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("damping", [1.5, 3.0, 7.0])
def test_conjugate_gradient(case: Case, iterations: int, damping: float) -> None:
    solve = torchopt.linear_solve.solve_cg(ridge=damping, maxiter=iterations, rtol=0.0, atol=0.0)
    found = case.hypergradient("conjugate_gradient", iterations=iterations, damping=damping)
    torch.testing.assert_close(found, theirs(case, solve), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("terms", [2, 5])
def test_neumann(case: Case, terms: int) -> None:
    solve = torchopt.linear_solve.solve_inv(ns=True, maxiter=terms - 1, alpha=0.2)  # it does not count the first
    found = case.hypergradient("neumann", terms=terms, step_size=0.2)
    torch.testing.assert_close(found, theirs(case, solve), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("damping", [1.5, 3.0])
def test_implicit(case: Case, damping: float) -> None:
    solve = torchopt.linear_solve.solve_cg(ridge=damping, maxiter=300)
    torch.testing.assert_close(
        case.hypergradient("implicit", damping=damping), theirs(case, solve), rtol=1e-4, atol=1e-6
    )
