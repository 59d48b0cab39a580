"""Every tensor that a model of a given architecture has, with its shape."""

from __future__ import annotations

from subllm.models.arch.spec import ArchSpec


def tensor_shapes(spec: ArchSpec) -> dict[str, tuple[int, ...]]:
    """Checkpoint name -> shape, in the order in which a forward pass meets them.

    A tied head is the embedding and is listed once.
    """
    shapes: dict[str, tuple[int, ...]] = {spec.embedding_name: (spec.vocab_size, spec.hidden_size)}
    for layer in range(spec.num_layers):
        shapes.update(block_shapes(spec, layer))
    shapes[spec.final_norm_name] = (spec.hidden_size,)
    if spec.norm_bias:
        shapes[spec.final_norm_name.replace(".weight", ".bias")] = (spec.hidden_size,)
    shapes[spec.head_name] = (spec.vocab_size, spec.hidden_size)
    return shapes


def block_shapes(spec: ArchSpec, layer: int) -> dict[str, tuple[int, ...]]:
    """Checkpoint name -> shape of the tensors of one block."""
    prefix = spec.block_prefix(layer)
    shapes: dict[str, tuple[int, ...]] = {}
    for norm in spec.block_norms:
        size = spec.head_dim if norm.startswith("self_attn.") else spec.hidden_size
        shapes[f"{prefix}{norm}.weight"] = (size,)
        if spec.norm_bias:
            shapes[f"{prefix}{norm}.bias"] = (size,)
    for linear in spec.linears:
        shapes[f"{prefix}{linear.name}.weight"] = (linear.out_features, linear.in_features)
        if linear.bias:
            shapes[f"{prefix}{linear.name}.bias"] = (linear.out_features,)
    return shapes
