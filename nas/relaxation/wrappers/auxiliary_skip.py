"""An auxiliary skip connection that fades out (Chu et al., DARTS-, ICLR 2021)."""

from __future__ import annotations

from collections.abc import Mapping

from nas.declarations import declares
from nas.genotype.decision import Decision
from nas.registry import Positive
from nas.relaxation.wrappers.candidates_named import require_candidate
from nas.space.wrapper import Factory, Moment, Spot, Term, Wrapper


@declares(reads=("edge inputs", "edge outputs"), writes="edge outputs")
class AuxiliarySkip(Wrapper):
    """Adds `beta(t) skip(x)` to each sum that has a skip connection among its candidates.

    beta falls linearly to 0 over the search, so that at its end the candidates stand alone. The added skip connection
    is built as the candidate is: the identity, or at stride 2 a `FactorizedReduce` with weights of its own. With
    partial channels it acts on the channels that the candidates compute; the other ones pass unchanged anyway.

    Args:
        beta: at the first step.
        candidate: name of the skip connection.

    References:
        Chu et al., DARTS-: Robustly Stepping out of Performance Collapse Without Indicators, ICLR 2021, eq. 7;
        Meituan-AutoML/DARTS-, `src/search/model_search.py`, `MixedOp`.
    """

    schedule = "`beta` from 1 to 0, linear"

    def __init__(self, beta: Positive = 1.0, candidate: str = "skip_connect") -> None:
        self.beta, self.candidate = beta, candidate

    def require(self, decisions: Mapping[str, Decision]) -> None:
        require_candidate("auxiliary_skip", self.candidate, decisions)

    def terms(self, spot: Spot, candidates: Mapping[str, Factory]) -> Mapping[str, Term]:
        make = candidates.get(self.candidate)
        return {} if make is None else {"auxiliary_skip": Term(make, self._weight)}

    def _weight(self, moment: Moment) -> float:
        return self.beta * (1 - moment.progress)
