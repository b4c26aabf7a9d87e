"""Names of the torch functions whose effect on tokens is known."""

from __future__ import annotations

__all__ = [
    "CONVOLUTIONS",
    "EXACT",
    "FOURIER",
    "LINEARS",
    "MIXERS",
    "MIXES",
    "MOVES",
    "POOLS",
    "SCALES",
    "SUMS",
]

# fmt: off
# functions that only move values about: the same call on token numbers gives the token numbers of the result
MOVES = frozenset({
    "view", "reshape", "permute", "transpose", "swapaxes", "swapdims", "flatten", "unflatten",
    "squeeze", "unsqueeze", "expand", "expand_as", "roll", "chunk", "split",
    "unbind", "narrow", "select", "__getitem__", "index_select", "gather", "flip", "repeat", "tile",
    "repeat_interleave", "movedim", "moveaxis", "adjoint", "tensor_split", "hsplit", "vsplit",
    "view_as", "reshape_as", "broadcast_to", "as_strided", "take_along_dim", "unfold", "t", "T", "mT",
    "mH", "diagonal", "split_with_sizes", "masked_select", "ravel",
})
LINEARS = frozenset({
    "linear", "linear_dynamic", "linear_dynamic_fp16", "linear_relu_dynamic",
})
FOURIER = frozenset({
    f"fft_{kind}fft{axes}" for kind in ("", "i", "r", "ir") for axes in ("", "2", "n")
})
# same shape in and out, but tokens change places or mix
MIXES = FOURIER | frozenset({
    "sort", "argsort", "topk", "cumsum", "cumprod", "softmax", "log_softmax", "flip",
    "scatter", "scatter_", "index_put", "index_put_", "index_copy", "index_copy_",
    "index_add", "index_add_", "masked_scatter", "masked_scatter_", "logcumsumexp", "conv_transpose2d",
    "conv_transpose1d",
})
CONVOLUTIONS = frozenset({
    "conv1d", "conv2d", "conv3d",
})
POOLS = frozenset({
    "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "interpolate", "avg_pool1d", "max_pool1d",
    "max_pool3d", "avg_pool3d", "max_pool2d_with_indices", "_max_pool2d", "_max_pool1d", "_max_pool3d",
    "upsample",
})
# what softmax outputs pass through unchanged, or multiplied, added, or mixed over heads
EXACT = frozenset({
    "to", "type", "type_as", "float", "half", "bfloat16", "double", "dropout", "alpha_dropout",
    "contiguous", "clone", "detach", "dropout_",
})
SCALES = frozenset({
    "masked_fill", "masked_fill_", "nan_to_num", "nan_to_num_", "mul", "__mul__", "multiply", "mul_",
    "__imul__", "__rmul__", "div", "div_", "__truediv__", "__itruediv__", "__idiv__",
})
SUMS = frozenset({
    "add", "__add__", "__radd__", "add_", "__iadd__", "sub", "__sub__",
})
MIXERS = frozenset({
    "linear", "layer_norm", "batch_norm",
})
# fmt: on
