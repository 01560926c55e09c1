"""Functions whose gradient torch cannot differentiate: by kernels that it can, or by an error that says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.files import convert
from nas.kernels.second_order import not_differentiable, twice_differentiable
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet
from quadratic import covering


def drawn(*shape: int, seed: int = 0) -> Tensor:
    tensor: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tensor


def attention(module: nn.Module) -> Callable[..., Tensor]:
    def run(x: Tensor) -> Tensor:
        output = module(x, x, x, need_weights=False)[0] if isinstance(module, nn.MultiheadAttention) else module(x)
        assert isinstance(output, Tensor)
        return output

    return run


def made(build: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(*arguments, **options).double()


BAGS = torch.tensor([[1, 0, 2], [2, 3, 1]])
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "attention": (F.scaled_dot_product_attention, [drawn(2, 2, 3, 4, seed=i) for i in range(3)]),
    "causal attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        [drawn(2, 2, 3, 4, seed=i) for i in range(3)],
    ),
    "MultiheadAttention": (attention(made(nn.MultiheadAttention, 4, 2, batch_first=True)), [drawn(2, 3, 4)]),
    "TransformerEncoderLayer": (
        attention(made(nn.TransformerEncoderLayer, 4, 2, 8, dropout=0.0, activation="gelu", batch_first=True)),
        [drawn(2, 3, 4)],
    ),
    "hardsigmoid": (F.hardsigmoid, [4 * drawn(5, 3)]),
    "Hardsigmoid": (nn.Hardsigmoid(), [4 * drawn(5, 3)]),
    **{
        f"cdist {p}": (lambda x, y, p=p: torch.cdist(x, y, p), [drawn(4, 3), drawn(5, 3, seed=1)])
        for p in (1, 2, 3, torch.inf)
    },
    **{
        f"embedding_bag {mode}": (lambda w, mode=mode: F.embedding_bag(BAGS, w, mode=mode), [drawn(4, 3)])
        for mode in ("mean", "sum", "max")
    },
    "weighted EmbeddingBag": (
        lambda w, s: F.embedding_bag(BAGS, w, mode="sum", per_sample_weights=s),
        [drawn(4, 3), drawn(2, 3)],
    ),
}
every_function = pytest.mark.parametrize(("function", "inputs"), FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
def test_values_and_gradients_are_those_of_torch(function: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    given = [x.clone().requires_grad_() for x in inputs]
    with twice_differentiable():
        found = function(*given)
    expected = function(*given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(output.sin().sum(), given) for output in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)  # torch's hardsigmoid divides by 6 in float32


@every_function
def test_second_derivatives_equal_central_differences(function: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    def run(*given: Tensor) -> Tensor:
        with twice_differentiable():
            return function(*given)

    given = [x.clone().requires_grad_() for x in inputs]
    with pytest.raises((RuntimeError, NotImplementedError), match="is not implemented"):
        torch.autograd.gradgradcheck(function, given, fast_mode=True)  # else there would be no need
    assert torch.autograd.gradgradcheck(run, given, fast_mode=True)


def test_the_distance_of_equal_points_has_finite_second_derivatives() -> None:
    x = drawn(3, 2).requires_grad_()
    with twice_differentiable():
        value = torch.cdist(x, x).square().sum()  # 2 * 3 * the squared distance from the mean
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    torch.testing.assert_close(first, 12 * (x - x.mean(0)))
    torch.testing.assert_close(second, 288 * (x - x.mean(0)))


def test_the_kernels_of_attention_are_torch_s_own_again_afterwards() -> None:
    enabled: Any = torch.backends.cuda.flash_sdp_enabled
    before = enabled()
    with twice_differentiable():
        assert not enabled()
    assert enabled() == before


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (F.pdist, "pdist"),
        (lambda x: F.ctc_loss(x[:, None], torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])), "ctc_loss"),
        (lambda x: F.multi_margin_loss(x, torch.tensor([1, 0, 2, 2])), "multi_margin_loss"),
        (lambda x: F.embedding_bag(BAGS.flatten(), x, torch.tensor([0, 4])), "embedding_bag"),
        (lambda x: torch.cdist(x, x + 1, 1.5), "cdist"),
    ],
)
def test_an_operation_without_second_derivative_is_named(function: Callable[..., Tensor], operation: str) -> None:
    x = drawn(4, 3).requires_grad_()
    with twice_differentiable():
        value = function(x.log_softmax(-1)).square().sum()
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError)) as raised:
        torch.autograd.grad(first.sum(), x)
    assert not_differentiable(raised.value) == operation
    assert not_differentiable(RuntimeError("out of memory")) is None


# --- levels whose responses need them ---


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return attention(self.attention)(x)


def mixing(choose: Chooser, /) -> nn.Module:
    tokens = choose("tokens", {"attention": Attended, "linear": lambda: nn.Linear(4, 4)})
    return nn.Sequential(tokens, nn.Hardsigmoid(), nn.Linear(4, 4))


def fit(net: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = (net(x) - x.roll(1, -1)).square().mean()
    return loss


def listening(net: nn.Module, x: Tensor) -> Tensor:
    """A loss without second derivatives."""
    return F.ctc_loss(
        net(x).log_softmax(-1).transpose(0, 1), torch.ones(2, 1), torch.tensor([3, 3]), torch.tensor([1, 1])
    )


def levels(method: dict[str, Any], losses: tuple[str, str] = ("fit", "fit"), **options: Any) -> Multilevel:
    """Two levels of operation weights and one of arch parameters, which begins half through the run."""
    supernet = Supernet(SearchSpace("mixing", mixing), **options).double()
    common = {"split": "s", "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.5}}
    fields: dict[str, dict[str, Any]] = {
        "head": {"parameters": ["network.2.*"], "loss": losses[0], **common},
        "body": {"parameters": ["network.0.*"], "loss": losses[1], **common},
        "upper": {
            "parameters": ["arch.*"],
            "loss": "fit",
            "warmup": 0.5,
            "hypergradient": {"head": method, "body": method},
            **common,
        },
    }
    named = {name: convert(each, Level, name) for name, each in fields.items()}
    tasks = {"fit": fit, "listening": listening}
    return Multilevel(supernet, named, tasks, lambda split, index: drawn(2, 3, 4, seed=index), 4)


@pytest.mark.parametrize("memory", ["keep", "checkpoint"])
@pytest.mark.parametrize("method", ["unrolled", "implicit", "neumann"])
def test_levels_respond_through_attention(method: str, memory: str) -> None:
    if method == "unrolled":
        exact = levels({"name": "finite_difference", "radius": 1e-5}).gradient("upper", 2)[1]
        found = levels({"name": method}, memory=memory).gradient("upper", 2)[1]
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-9)
        ignored = levels({"name": "first_order"}).gradient("upper", 2)[1]
        assert not torch.allclose(ignored["arch.tokens"], exact["arch.tokens"], rtol=1e-3)
        return
    kept, again = (levels(covering(method), memory=each).gradient("upper", 2)[1] for each in ("keep", memory))
    torch.testing.assert_close(again, kept, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("losses", "blamed"), [(("listening", "fit"), "head"), (("fit", "listening"), "body")])
@pytest.mark.parametrize("method", ["unrolled", "neumann", "implicit", "truncated"])
def test_a_hypergradient_that_torch_cannot_compute_is_an_error_before_the_first_step(
    method: str, losses: tuple[str, str], blamed: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"^level 'upper': hypergradient.{blamed} \({method}\) .* of ctc_loss, which"
    ):
        levels({"name": method}, losses)


@pytest.mark.parametrize("method", ["first_order", "finite_difference", "gauss_newton"])
def test_other_hypergradients_need_no_second_derivatives(method: str) -> None:
    for losses in (("listening", "fit"), ("fit", "listening")):
        levels({"name": method}, losses).gradient("upper", 2)


def test_trying_the_hypergradients_changes_nothing_but_takes_one_pass_of_each_level() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    calls: list[bool] = []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: calls.append(True) if isinstance(module, Supernet) else None
    )
    with hook:
        tried = levels({"name": "unrolled"})
    plain = levels({"name": "first_order"})
    assert torch.equal(torch.get_rng_state(), before)
    assert len(calls) == 1 + 3  # one loss, which all levels share, and a hypergradient
    for name, value in tried.model.state_dict().items():
        assert torch.equal(value, plain.model.state_dict()[name])
    assert all(p.grad is None for p in tried.model.parameters())
    assert not any(optimizer.state for optimizer in tried.optimizers.values())


def test_a_level_that_does_not_curve_upwards_yet_may_do_so_when_it_responds() -> None:
    flat = {"name": "implicit", "damping": 0, "limit": 200}
    supernet = Supernet(SearchSpace("mixing", mixing)).double()
    common = {"split": "s", "optimizer": {"name": "sgd", "lr": 0.1}}
    named = {
        "lower": convert({"parameters": ["network.*"], "loss": "cubic", **common}, Level, "lower"),
        "upper": convert(
            {"parameters": ["arch.*"], "loss": "fit", "warmup": 0.5, "hypergradient": {"lower": flat}, **common},
            Level,
            "upper",
        ),
    }

    def cubic(net: nn.Module, x: Tensor) -> Tensor:
        return sum((p**3).sum() for p in net.parameters()) + 0 * fit(net, x)  # type: ignore[return-value]

    with torch.no_grad():
        for p in supernet.network.parameters():
            p.zero_()
    engine = Multilevel(supernet, named, {"cubic": cubic, "fit": fit}, lambda split, index: drawn(2, 3, 4), 4)
    with pytest.raises(
        ConfigError, match=r"^level 'upper', response of 'lower' by 'implicit': .*damping must be above 0, .*got 0"
    ):
        engine.gradient("upper", 2)
