"""What every hypergradient method must satisfy: a test class to inherit from.

>>> class TestNeumann(HypergradientTests):
...     hypergradient = {"name": "neumann", "terms": 200}
...     approximates = "optimum"
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nas.hypergradient.response import Loss, Parameters, Part, Response
from nas.testing.subject import Subject, made, unchanged

Form = Literal["optimum", "steps", "nothing", "other"]
"""What a method approximates: the response of the level's optimum, that of its optimizer's next steps, no response
(first order), or something else."""
FORMS: tuple[Form, ...] = ("optimum", "steps", "nothing")
"""Those that have a closed form here."""


class Quadratic:
    """The problem of the tests: `f(w, a) = w'Hw / 2 - w'(Ba + s_i)` in step i, and `F(w, a) = |w - c|^2 / 2 + d'a`.

    All tensors are float64. `w` is the lower level's, in two tensors; H has eigenvalues from 1 to 3; the step of the
    optimizer is gradient descent at the rate 0.1.

    Args:
        coupling: factor of B: with 0 the lower level does not depend on the upper one.
        names: of the two tensors of `w`.
    """

    rate = 0.1

    def __init__(self, coupling: float = 1.0, names: tuple[str, str] = ("first", "second")) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.double)

        rotation, _ = torch.linalg.qr(normal(6, 6))
        self.h = rotation @ torch.linspace(1, 3, 6, dtype=torch.double).diag() @ rotation.T
        self.b, self.c, self.d, self.shift = coupling * normal(6, 3), normal(6), normal(3), normal(6)
        self.a = normal(3).requires_grad_()
        self.start = normal(6)
        self.names = names

    @property
    def optimum(self) -> Tensor:
        """The minimum of the first loss, `(6,)`."""
        minimum: Tensor = torch.linalg.solve(self.h, self.b @ self.a.detach())
        return minimum

    def named(self, w: Tensor) -> Parameters:
        """Return `w` as the level's two parameters."""
        return {self.names[0]: w[:4].clone().view(2, 2), self.names[1]: w[4:].clone()}

    def flat(self, own: Parameters) -> Tensor:
        """Return the level's two parameters as `w`."""
        return torch.cat([own[name].flatten() for name in self.names])

    def parts(self, step: int) -> list[Part]:
        """Return the lower loss of a step, of two micro-batches."""

        def part(sign: float, own: Parameters, others: Parameters) -> Tensor:
            w = self.flat(own)
            loss: Tensor = w @ self.h @ w / 2 - w @ (self.b @ others["a"] + step * self.shift) + sign * w.sum()
            return loss

        return [partial(part, sign) for sign in (-1.0, 1.0)]

    @property
    def loss(self) -> Loss:
        """The lower loss in its next step; later ones differ."""
        return Loss(self.parts(0), later=self.parts)

    def step(self, own: Parameters, gradients: Parameters) -> Parameters:
        """Return the parameters after a step of the lower optimizer."""
        return {name: value - self.rate * gradients[name] for name, value in own.items()}

    def gradient(self, method: Response, w: Tensor) -> Tensor:
        """Return the gradient `(3,)` of the upper loss through the method's response at `w`."""
        response = method(self.loss, self.named(w), {"a": self.a}, self.step)
        loss = (self.flat(response) - self.c).square().sum() / 2 + self.d @ self.a
        return torch.autograd.grad(loss, self.a)[0]

    def error(self, method: Response, form: Form) -> float:
        """Return the relative error of the gradient: at the optimum if this is approximated, elsewhere if not."""
        w = self.optimum if form == "optimum" else self.start
        jacobian = torch.zeros_like(self.b)
        if form == "optimum":
            jacobian = torch.linalg.solve(self.h, self.b)
        final = w
        for step in range(getattr(method, "steps", 1) if form == "steps" else 0):
            jacobian = jacobian - self.rate * (self.h @ jacobian - self.b)
            final = final - self.rate * (self.h @ final - self.b @ self.a.detach() - step * self.shift)
        exact = self.d + jacobian.T @ (final - self.c)
        return float((self.gradient(method, w) - exact).norm() / exact.norm())


class HypergradientTests:
    """Conformance tests of a hypergradient method: subclass it in a test module, as `Test...`, and name the method."""

    hypergradient: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""
    approximates: ClassVar[Form | None] = None
    """What the method approximates; None accepts any that has a closed form, and `other` is not compared."""
    tolerance: ClassVar[float] = 1e-6
    """Largest relative error of the gradient in its closed form."""

    def test_the_gradient_equals_its_closed_form(self) -> None:
        problem, method = Quadratic(), self._made()
        forms = FORMS if self.approximates is None else (self.approximates,)
        errors = {form: problem.error(method, form) for form in forms if form != "other"}
        assert not errors or min(errors.values()) <= self.tolerance, (
            f"the relative error must be at most {self.tolerance:g}, got "
            + ", ".join(f"{error:.2g} ({form})" for form, error in errors.items())
            + "; state what the method approximates"
        )

    def test_a_level_that_does_not_depend_on_upper_ones_does_not_respond(self) -> None:
        problem = Quadratic(coupling=0.0)
        gradient = problem.gradient(self._made(), problem.start)
        assert torch.allclose(gradient, problem.d, rtol=1e-9), (
            "the gradient must be that of the upper loss alone if the lower loss does not depend on the upper level,"
            f" got a difference of {(gradient - problem.d).norm():.2g}"
        )

    def test_the_response_has_the_form_of_the_parameters(self) -> None:
        problem = Quadratic()
        own = problem.named(problem.start)
        response = self._made()(problem.loss, own, {"a": problem.a}, problem.step)
        assert list(response) == list(own), f"the response must have the parameters {list(own)}, got {list(response)}"
        for name, value in own.items():
            found = response[name]
            assert (found.shape, found.dtype) == (value.shape, value.dtype), (
                f"'{name}' must keep its shape {tuple(value.shape)} and type {value.dtype}, got {tuple(found.shape)}"
                f" and {found.dtype}"
            )
            assert found.isfinite().all(), f"'{name}' must be finite"

    def test_names_mean_nothing(self) -> None:
        method = self._made()
        first, second = (Quadratic(names=names) for names in (("first", "second"), ("zeta.weight", "alpha")))
        gradients = first.gradient(method, first.start), second.gradient(method, second.start)
        assert torch.allclose(*gradients, rtol=1e-9), "the gradient changes with the names of the parameters"

    def test_nothing_changes(self) -> None:
        problem, method = Quadratic(), self._made()
        own = problem.named(problem.start)
        others = {"a": problem.a}
        before = {name: value.clone() for name, value in (own | others).items()}
        with unchanged("a hypergradient method"):
            response = method(problem.loss, own, others, problem.step)
            torch.autograd.grad(problem.flat(response).sum() + problem.a.sum(), problem.a)
        for name, value in (own | others).items():
            assert torch.equal(value, before[name]), f"the method must not change the value of '{name}'"
            assert value.grad is None, f"the method must not set the attribute `grad` of '{name}'"
            assert value.requires_grad == (name == "a"), f"the method must not change `requires_grad` of '{name}'"

    def test_equal_calls_give_equal_gradients(self) -> None:
        problem, method = Quadratic(), self._made()
        first, second = (problem.gradient(method, problem.start) for _ in range(2))
        assert torch.equal(first, second), f"two equal calls differ by {(first - second).norm():.2g}"

    def test_constant_upper_parameters_need_no_gradient(self) -> None:
        problem = Quadratic()
        others = {"a": problem.a.detach()}
        response = self._made()(problem.loss, problem.named(problem.start), others, problem.step)
        assert set(response) == set(problem.names)

    def _made(self) -> Response:
        method: Response = made("hypergradient", type(self).hypergradient)
        return method
