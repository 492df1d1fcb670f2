"""What a program asks for when it is lowered."""

import jax


def equations(jaxpr):
    """All equations of a program, with those of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def precisions(program, arguments):
    closed = jax.make_jaxpr(program)(*arguments)
    return [
        equation.params["precision"]
        for equation in equations(closed.jaxpr)
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]
