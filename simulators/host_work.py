"""Work of a host: how it is counted, the same for a rule that sums over recorded spikes and for one that runs a twin.

Multiply-accumulates and other operations are those of the arithmetic that ran, events where events were summed and matrix
products where there were matrix products. An addition of a spike of amplitude 1 is an operation, of any other a
multiply-accumulate. A surrogate's slope is three operations, an exponential, a comparison or a quotient one.

Words are those of 32 bits that go between memory and arithmetic when every stage reads what it needs once and stores what it
makes once, whatever the batch: a stage is all steps of one layer, of all samples. That is the least traffic there can be
without fusing stages; what stays within a stage (a membrane from one step to the next, partial sums, what is fetched again
because a cache is small) is in registers, at no price. Spikes that are held densely are a word per neuron and step, as events a
word each.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Work:
    """What was done: multiply-accumulates, other operations, words of memory read or stored."""

    macs: int = 0
    operations: int = 0
    words: int = 0

    def add(self, *, macs: int = 0, operations: int = 0, words: int = 0) -> None:
        """Count more of it."""
        self.macs += int(macs)
        self.operations += int(operations)
        self.words += int(words)


@dataclass(slots=True)
class PassWork:
    """What one pass through a differentiable network took, forward and backward."""

    forward: Work = field(default_factory=Work)
    backward: Work = field(default_factory=Work)


SURROGATE_OPERATIONS = 3
"""Of the slope that stands for the derivative of a spike."""
