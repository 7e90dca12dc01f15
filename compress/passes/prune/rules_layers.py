"""What layers make of dimensions: those with weights, normalisations and attention."""

from __future__ import annotations

import math
from collections.abc import Mapping

from compress.passes.prune.axes import UNIT, Dim, freeze, fresh, mix, product, size, unify
from compress.passes.prune.trace import Call, Result, Rule, Shape, dims_size, frozen_shape, refuse

# Why the elements of a kernel stay; such dimensions are no groups worth a word.
KERNEL = "a kernel"


def linear(call: Call) -> Result:
    """`linear(input, weight, bias)`: the last dimension is contracted with the weight's second."""
    value, weight, bias = call.shape("input") or (), call.shape("weight") or (), call.shape("bias")
    unify(value[-1], weight[-1], call.at("linear"))
    if len(weight) == 1:
        return value[:-1]
    if bias:
        unify(bias[-1], weight[0], call.at("linear"))
    return (*value[:-1], weight[0])


def matmul(call: Call) -> Result:
    """`matmul`, `mm`, `bmm`: the contracted dimensions are one, those of the batch are broadcast."""
    left = call.shape("self") or ()
    right = call.shape("other") or call.shape("mat2") or ()
    contracted, rows = left[-1], left[-2:-1]
    if len(right) == 1:
        unify(contracted, right[0], call.at("product"))
        columns: Shape = ()
    else:
        unify(contracted, right[-2], call.at("product"))
        columns = (right[-1],)
    return (*broadcast(call, [left[:-2], right[:-2]]), *rows, *columns)


def addmm(call: Call) -> Result:
    """`addmm(bias, a, b)`, `baddbmm`: a product with something added."""
    added = call.shape("self") or ()
    left = call.shape("mat1") or call.shape("batch1") or ()
    right = call.shape("mat2") or call.shape("batch2") or ()
    unify(left[-1], right[-2], call.at("product"))
    result = (*broadcast(call, [left[:-2], right[:-2]]), left[-2], right[-1])
    broadcast(call, [added, result])
    return result


def embedding(call: Call) -> Result:
    """`embedding(weight, indices)`: rows are looked up by number, so none may go."""
    weight, indices = call.shape("weight") or (), call.shape("indices") or ()
    freeze(weight[0], call.at("rows of a table that are looked up by number"))
    return (*indices, weight[1])


def convolution(call: Call) -> Result:
    """`conv1d` to `conv3d`: with groups, channels are `groups · channels of a group` on both sides."""
    value, weight, bias = call.shape("input") or (), call.shape("weight") or (), call.shape("bias")
    spatial = int(call.operator.removeprefix("conv")[0])
    sizes = call.sizes()
    for dim in value[-spatial:]:
        freeze(dim, call.at("picture elements"))
    for dim in weight[2:]:
        freeze(dim, KERNEL)
    batch = value[: len(value) - spatial - 1]
    channels, reason = value[-spatial - 1], call.at("convolution")
    groups = int(call.get("groups", 1))
    if groups == 1:
        unify(channels, weight[1], reason)
    else:
        # Depthwise: a group has one channel in, and as many out as the multiplier says.
        group = fresh(groups)
        unify(channels, product([group, weight[1]]), reason)
        unify(weight[0], product([group, fresh(size(weight[0]) // groups)]), reason)
        call.rewrite("groups", lambda cut: cut.size(group))
    if bias:
        unify(bias[0], weight[0], reason)
    out = frozen_shape(sizes[len(sizes) - spatial :], call.at("picture elements"))
    return (*batch, weight[0], *out)


def conv_transpose(call: Call) -> Result:
    """`conv_transpose1d` to `conv_transpose3d`: the weight is `[in, out / groups, …]`."""
    value, weight, bias = call.shape("input") or (), call.shape("weight") or (), call.shape("bias")
    spatial = int(call.operator.removeprefix("conv_transpose")[0])
    sizes, reason = call.sizes(), call.at("convolution")
    for dim in value[-spatial:]:
        freeze(dim, call.at("picture elements"))
    for dim in weight[2:]:
        freeze(dim, KERNEL)
    groups = int(call.get("groups", 1))
    unify(value[-spatial - 1], weight[0], reason)
    result = weight[1]
    if groups > 1:
        group = fresh(groups)
        unify(weight[0], product([group, fresh(size(weight[0]) // groups)]), reason)
        result = product([group, weight[1]])
        call.rewrite("groups", lambda cut: cut.size(group))
    if bias:
        unify(bias[0], result, reason)
    out = frozen_shape(sizes[len(sizes) - spatial :], call.at("picture elements"))
    return (*value[: len(value) - spatial - 1], result, *out)


def batch_norm(call: Call) -> Result:
    """`batch_norm`, `instance_norm`: in eval form every channel is scaled and shifted by itself."""
    value = call.shape("input") or ()
    for name in ("weight", "bias", "running_mean", "running_var"):
        held = call.shape(name)
        if held:
            unify(value[1], held[0], call.at("batch normalisation"))
    return value


def prelu(call: Call) -> Result:
    """`prelu`: a slope a channel, or one for all."""
    value, weight = call.shape("self") or (), call.shape("weight") or ()
    if dims_size(weight) > 1:
        unify(value[1], weight[0], call.at("prelu"))
    return value


def layer_norm(call: Call) -> Result:
    """`layer_norm`, `rms_norm`: statistics run over the last dimensions, whose sizes are an argument."""
    value = call.shape("input") or ()
    count = len(call.get("normalized_shape"))
    last = value[-count:]
    for name in ("weight", "bias"):
        held = call.shape(name)
        for dim, other in zip(last, held or (), strict=False):
            unify(dim, other, call.at("layer normalisation"))
    for dim in last:
        mix(dim, call.at("layer normalisation"))
    call.rewrite("normalized_shape", lambda cut: [cut.size(dim) for dim in last])
    return value


def group_norm(call: Call) -> Result:
    """`group_norm`: statistics run over the channels of a group; whole groups may go, or the same part of each."""
    value = call.shape("input") or ()
    groups = int(call.get("num_groups"))
    group, inside = fresh(groups), fresh(size(value[1]) // groups)
    unify(value[1], product([group, inside]), call.at("group normalisation"))
    for name in ("weight", "bias"):
        held = call.shape(name)
        if held:
            unify(value[1], held[0], call.at("group normalisation"))
    mix(inside, call.at("group normalisation"))
    call.rewrite("num_groups", lambda cut: cut.size(group))
    return value


def attention(call: Call) -> Result:
    """`scaled_dot_product_attention(query, key, value, mask)`; grouped queries share the heads of keys and values."""
    query, key, value = (call.shape(name) or () for name in ("query", "key", "value"))
    reason = call.at("attention")
    unify(query[-1], key[-1], reason)
    unify(key[-2], value[-2], reason)
    mix(key[-2], call.at("attention's softmax"))
    if call.get("enable_gqa", False):
        ratio = size(query[-3]) // size(key[-3])
        unify(query[-3], product([key[-3], fresh(ratio)]), reason)
        unify(key[-3], value[-3], reason)
        outer = (*broadcast(call, [query[:-3], key[:-3], value[:-3]]), query[-3])
    else:
        outer = broadcast(call, [query[:-2], key[:-2], value[:-2]])
    mask = call.shape("attn_mask")
    if mask:
        broadcast(call, [mask, (*outer, query[-2], key[-2])])
    if call.get("scale") is None:
        # The default is taken from the size of a head, which a cut changes and the scores must not.
        scale = 1 / math.sqrt(size(query[-1]))
        call.rewrite("scale", lambda cut: scale)
    return (*outer, query[-2], value[-1])


def recurrent(call: Call) -> Result:
    """LSTM and GRU: gates lie one behind the other in the weights, and what is cut there is cut in each step."""
    return refuse(call, "a recurrent layer is not cut")


def pooling(call: Call) -> Result:
    """Pooling and resizing: channels stay, picture elements change."""
    value = call.shape("self") or call.shape("input") or ()
    sizes = call.sizes()
    spatial = next(int(mark) for mark in call.operator if mark.isdigit())
    for dim in value[-spatial:]:
        freeze(dim, call.at("picture elements"))
    return (*value[:-spatial], *frozen_shape(sizes[-spatial:], call.at("picture elements")))


def pixel_shuffle(call: Call) -> Result:
    """`pixel_shuffle`: the `r · r` parts of each channel become picture elements."""
    value, sizes = call.shape("self") or (), call.sizes()
    parts = fresh(int(call.get("upscale_factor")) ** 2, call.at("picture elements"))
    channels = fresh(sizes[-3])
    unify(value[-3], product([channels, parts]), call.at("pixel_shuffle"))
    for dim in value[-2:]:
        freeze(dim, call.at("picture elements"))
    return (*value[:-3], channels, *frozen_shape(sizes[-2:], call.at("picture elements")))


def broadcast(call: Call, shapes: list[Shape]) -> Shape:
    """Lines shapes up from the right and makes one of those that are not of size 1."""
    result: list[Dim] = []
    for place in range(1, max((len(shape) for shape in shapes), default=0) + 1):
        here = [shape[-place] for shape in shapes if len(shape) >= place and size(shape[-place]) > 1]
        for other in here[1:]:
            unify(here[0], other, call.at(call.operator))
        result.insert(0, here[0] if here else UNIT)
    return tuple(result)


RULES: Mapping[str, Rule] = {
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), addmm),
    "embedding": embedding,
    **{f"conv{n}d": convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": conv_transpose for n in (1, 2, 3)},
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    "prelu": prelu,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("lstm", "gru"), recurrent),
    **{
        f"{kind}{n}d": pooling
        for n in (1, 2, 3)
        for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    },
    **{f"upsample_nearest{n}d": pooling for n in (1, 2, 3)},
    **dict.fromkeys(
        ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"), pooling
    ),
    "_upsample_bilinear2d_aa": pooling,
    "pixel_shuffle": pixel_shuffle,
}

__all__ = ["KERNEL", "RULES", "broadcast"]
