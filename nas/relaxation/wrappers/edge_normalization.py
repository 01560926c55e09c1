"""Edge normalization (Xu et al., PC-DARTS, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nas.declarations import LEARNED, declares
from nas.errors import ConfigError
from nas.genotype.decision import Decision
from nas.space.wrapper import Wrapper


@declares(reads=("logits", "edge outputs"), writes="edge outputs", needs=LEARNED)
class EdgeNormalization(Wrapper):
    """Multiplies the in-edges of each node by the softmax of arch parameters b, one for each in-edge.

    They are `arch.LABEL` of the choice of in-edges, and cells of equal labels share them. A genotype ranks the in-edges
    of a node by softmax(b) times the largest mixing weight of the edge besides `none`. In a supernet that is fixed to a
    genotype the factors are 1, as in the derived network.

    References:
        Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020, eq. 3;
        yuhuixu1993/PC-DARTS, `model_search.py`, `Network.genotype`.
    """

    weighs_edges = True

    def require(self, decisions: Mapping[str, Decision]) -> None:
        if not any(decision.kind == "inputs" for decision in decisions.values()):
            raise ConfigError(
                "wrapper 'edge_normalization': the space must have nodes that sum in-edges, got none. Leave it out"
            )

    def edge_weights(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)
