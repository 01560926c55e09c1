"""Which samples of a batch a rank computes."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import Tensor

from nas.distributed.ranks import count, rank
from nas.distributed.reduction import summed
from nas.errors import ConfigError


class Share(NamedTuple):
    """The samples `begin` to `end`, without `end`, of `samples`: the share of one rank."""

    begin: int
    end: int
    samples: int

    @classmethod
    def own(cls, samples: int) -> Self:
        """Return the share of this rank; shares differ by one sample at most.

        Raises:
            ConfigError: there are fewer samples than ranks.
        """
        if samples < count():
            raise ConfigError(
                f"a batch must have a sample for each of the {count()} ranks, got {samples}. Use larger batches or"
                " fewer ranks"
            )
        return cls.of(rank() if count() > 1 else 0, samples)

    @classmethod
    def of(cls, number: int, samples: int) -> Self:
        """Return the share of a rank."""
        return cls(number * samples // count(), (number + 1) * samples // count(), samples)

    @property
    def weight(self) -> float:
        """The share as a number in (0, 1]."""
        return (self.end - self.begin) / self.samples

    def mean(self, loss: Tensor) -> Tensor:
        """Return the loss of the whole batch, from the mean loss of this rank's samples."""
        return loss if count() == 1 else summed(self.weight * loss)[0]

    def rows(self, length: int) -> Share | None:
        """Return the share in rows of an image or feature tensor that has `length` rows here; None if they are no
        multiple of the samples, such as the frames of a clip are."""
        each, rest = divmod(length, self.end - self.begin)
        return None if rest else Share(each * self.begin, each * self.end, each * self.samples)
