"""Which programs may be computed in micro-batches: those whose loss is a mean over samples that know nothing of each other.

Gradients of micro-batches add up to the whole batch's, up to rounding, unless the training graph looks at the batch as a whole.
Batch normalisation does: its statistics would be those of a micro-batch, and its running ones would be updated several times a
step. That is another model, so it is refused by name; ``nn.GroupNorm`` and ``nn.LayerNorm`` look at one sample only.
"""

from gridsched.core.errors import ProgramError
from gridsched.train.graph import Node, Program, Ref
from gridsched.train.operators import ALLOWED

__all__ = ["refuse_micro_batches"]

_NORMS = ("aten.batch_norm.default", "aten.instance_norm.default")
_RUNNING_MEAN, _TRAINING = 3, 5  # places of their arguments, the same in both


def refuse_micro_batches(program: Program) -> None:
    """Raises ProgramError naming what the training graph can only compute, or keep, for a whole batch."""
    for node in program.train.nodes:
        if kept := _of_the_whole_batch(program, node):
            raise ProgramError(
                f"the program cannot be trained with micro_batch: {kept} (node {node.name}, {node.op}) is of the whole batch; "
                "use GroupNorm or LayerNorm in the model, or leave micro_batch out"
            )


def _of_the_whole_batch(program: Program, node: Node) -> str:
    """The buffer, or else the node, or nothing."""
    if node.op in _NORMS and node.args[_TRAINING] is True:
        mean = node.args[_RUNNING_MEAN]
        if isinstance(mean, Ref):
            return mean.name
        # Without running statistics, instance normalisation is each sample's own affair.
        return node.name if node.op == "aten.batch_norm.default" else ""
    first = node.args[0] if node.args else None
    if ALLOWED[node.op] == "update" and isinstance(first, Ref) and first.kind == "tensor" and program.spec(first.name).role == "buffer":
        return first.name
    return ""
