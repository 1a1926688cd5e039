"""The operators a program may use: pure tensor arithmetic, and nothing that reads files, memory or the clock.

Names are ATen's (``namespace.op.overload`` of https://pytorch.org/docs/stable/torch.compiler_ir.html); ``sym.*`` is integer
arithmetic on sizes and ``getitem`` takes one result of several. The category says what a runtime must know about an
operator beyond its arithmetic:

- ``update``   writes to its first argument, which must be a buffer or an intermediate result
- ``factory``  makes a tensor on the runtime's device
- ``random``   draws; the runtime seeds its generator before every step
- all others are only for people: ``math``, ``linear``, ``convolution``, ``shape``, ``index``, ``reduce``, ``norm``, ``loss``,
  ``recurrent``, ``attention``, ``size``
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ALLOWED"]

_BY_CATEGORY = {
    "math": """
        abs.default acos.default add.Scalar add.Tensor asin.default atan.default bitwise_and.Tensor bitwise_not.default
        bitwise_or.Tensor ceil.default clamp.Tensor clamp.default clamp_max.default clamp_min.default cos.default cosh.default
        div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode elu.default eq.Scalar eq.Tensor erf.default exp.default expm1.default
        floor.default floor_divide.default fmod.Scalar fmod.Tensor ge.Scalar ge.Tensor gelu.default glu.default gt.Scalar gt.Tensor
        hardsigmoid.default hardswish.default hardtanh.default le.Scalar le.Tensor leaky_relu.default lerp.Scalar lerp.Tensor
        log.default log10.default log1p.default log2.default log_sigmoid.default logical_and.default logical_not.default
        logical_or.default lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor maximum.default minimum.default mish.default
        mul.Scalar mul.Tensor ne.Scalar ne.Tensor neg.default pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor prelu.default
        reciprocal.default relu.default relu6.default remainder.Scalar remainder.Tensor round.default rsqrt.default rsub.Scalar
        rsub.Tensor selu.default sigmoid.default sign.default silu.default sin.default sinh.default softplus.default
        softshrink.default sqrt.default square.default sub.Scalar sub.Tensor tan.default tanh.default threshold.default
        where.Scalar where.ScalarOther where.ScalarSelf where.self
    """,
    "linear": """
        addmm.default baddbmm.default bilinear.default bmm.default dot.default einsum.default linalg_vector_norm.default
        linear.default matmul.default mm.default mv.default outer.default
    """,
    "convolution": """
        adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_max_pool2d.default avg_pool1d.default avg_pool2d.default
        conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv_transpose1d.default
        conv_transpose2d.input max_pool1d.default max_pool2d.default max_pool2d_with_indices.default pixel_shuffle.default
        upsample_bilinear2d.vec upsample_nearest2d.vec
    """,
    "shape": """
        alias.default broadcast_tensors.default cat.default chunk.default clone.default concat.default constant_pad_nd.default
        contiguous.default detach.default expand.default expand_as.default flatten.using_ints flip.default movedim.int
        numpy_T.default pad.default permute.default repeat.default repeat_interleave.self_int reshape.default roll.default
        select.int slice.Tensor split.Tensor split_with_sizes.default squeeze.default squeeze.dim squeeze.dims stack.default
        swapaxes.default t.default tile.default to.dtype to.dtype_layout transpose.int type_as.default unbind.int
        unflatten.int unfold.default unsqueeze.default view.default view_as.default _to_copy.default
    """,
    "index": """
        embedding.default embedding_bag.padding_idx gather.default index.Tensor index_add.default index_copy.default
        index_select.default masked_select.default one_hot.default scatter.src scatter.value scatter_add.default
        scatter_reduce.two sort.default take_along_dim.default topk.default tril.default triu.default
    """,
    "reduce": """
        all.default all.dim amax.default amin.default any.default any.dim argmax.default argmin.default cumsum.default
        log_softmax.int logsumexp.default max.default max.dim mean.default mean.dim min.default min.dim norm.ScalarOpt_dim
        prod.default prod.dim_int softmax.int std.correction std.default std.dim sum.default sum.dim_IntList var.correction
        var.default var.dim
    """,
    "norm": "batch_norm.default group_norm.default instance_norm.default layer_norm.default rms_norm.default",
    "loss": """
        binary_cross_entropy.default binary_cross_entropy_with_logits.default cosine_embedding_loss.default
        cosine_similarity.default cross_entropy_loss.default hinge_embedding_loss.default huber_loss.default kl_div.default
        l1_loss.default margin_ranking_loss.default mse_loss.default multi_margin_loss.default nll_loss.default
        nll_loss_nd.default smooth_l1_loss.default soft_margin_loss.default
    """,
    "recurrent": "gru.input gru_cell.default lstm.input lstm_cell.default rnn_relu.input rnn_tanh.input rnn_tanh_cell.default",
    "attention": "scaled_dot_product_attention.default",
    "random": "alpha_dropout.default dropout.default feature_dropout.default rand_like.default randn_like.default",
    "factory": """
        arange.default arange.start arange.start_step empty_like.default eye.default eye.m full.default full_like.default
        linspace.default new_full.default new_ones.default new_zeros.default ones.default ones_like.default scalar_tensor.default
        zeros.default zeros_like.default
    """,
    "update": """
        add_.Scalar add_.Tensor clamp_.default clamp_min_.default copy_.default div_.Tensor elu_.default fill_.Scalar
        hardswish_.default hardtanh_.default index_add_.default leaky_relu_.default lerp_.Scalar masked_fill_.Scalar mul_.Scalar
        mul_.Tensor relu_.default scatter_.src scatter_add_.default sigmoid_.default silu_.default sub_.Tensor tanh_.default
        zero_.default
    """,
}
_SIZE_OPERATORS = ("getitem", "sym.add", "sym.floordiv", "sym.mod", "sym.mul", "sym.neg", "sym.sub")

ALLOWED: Mapping[str, str] = MappingProxyType(
    {f"aten.{name}": category for category, names in _BY_CATEGORY.items() for name in names.split()}
    | {"aten.sym_size.int": "size"}
    | dict.fromkeys(_SIZE_OPERATORS, "size")
)
