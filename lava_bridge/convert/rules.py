"""The table of rules: what each type of module does to a :class:`~lava_bridge.convert.Chain`.

A rule is found by a module's own type, not by its bases: a subclass may compute something else.
"""

from collections.abc import Callable
from typing import Any

import torch.nn as nn
from spikingjelly.activation_based import layer, neuron

from ..errors import ConversionError
from ..exchange import BlockContainer, CubaLIFNode, SumPool2d
from ..exchange.to_lava import check_flatten, check_synapse, sum_pool_of
from .chain import Chain

__all__ = ["RULES", "is_container", "rule", "rule_of"]

Rule = Callable[[Any, Chain], None]

RULES: dict[type, Rule] = {}

# Their children are converted one after the other.
CONTAINERS: tuple[type, ...] = (
    list,
    tuple,
    nn.Sequential,
    nn.ModuleList,
    layer.SeqToANNContainer,
    layer.MultiStepContainer,
    layer.StepModeContainer,
)


def rule(*types: type) -> Callable[[Rule], Rule]:
    """Register a function ``(module, chain) -> None`` as the rule for modules of ``types``."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, function))
        return function

    return register


@rule(nn.Linear, layer.Linear, nn.Conv2d, layer.Conv2d)
def _synapse(module: nn.Linear | nn.Conv2d, chain: Chain) -> None:
    check_synapse(module)
    chain.synapse(module)


@rule(nn.AvgPool2d, layer.AvgPool2d)
def _average_pool(module: nn.AvgPool2d, chain: Chain) -> None:
    chain.pool(*sum_pool_of(module))


@rule(SumPool2d)
def _sum_pool(module: SumPool2d, chain: Chain) -> None:
    chain.pool(module)


@rule(nn.Flatten, layer.Flatten)
def _flatten(module: nn.Flatten, chain: Chain) -> None:
    check_flatten(module)
    chain.flatten()


@rule(nn.Identity, nn.Dropout, nn.Dropout2d, layer.Dropout, layer.Dropout2d)
def _nothing(module: nn.Module, chain: Chain) -> None:
    """In evaluation these give what they take."""


@rule(neuron.IFNode, neuron.LIFNode, CubaLIFNode)
def _neuron(module: nn.Module, chain: Chain) -> None:
    chain.neuron(module)


@rule(BlockContainer)
def _block_container(module: BlockContainer, chain: Chain) -> None:
    part: Any
    for part in (module.synapse, module.neuron):
        if part is not None:
            rule_of(part)(part, chain)


def is_container(module: Any) -> bool:
    """Whether a module does no more than call its children one after the other."""
    return any(
        isinstance(module, kind)
        and getattr(type(module), "forward", None) is getattr(kind, "forward", None)
        and "forward" not in getattr(module, "__dict__", ())
        for kind in CONTAINERS
    )


def rule_of(module: Any) -> Rule:
    """The rule for a module, by its type.

    Raises:
        ConversionError: If there is none.
    """
    found = RULES.get(type(module))
    if found is not None:
        return found
    known = [base.__name__ for base in type(module).__mro__[1:] if base in RULES]
    near = f"; it is a kind of {known[0]} but may compute something else" if known else ""
    if isinstance(module, nn.Module) and next(module.children(), None) is not None and not near:
        near = " (its forward is not traced: it keeps a state, or is a library's)"
    raise ConversionError(
        f"no rule converts this type{near}; replace the module, or register a rule with "
        "lava_bridge.convert.rule"
    )
