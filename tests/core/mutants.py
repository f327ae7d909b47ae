"""Mistakes in the CUDA kernels that the tests of tests/core/test_simt_*.py have to notice: see test_simt_mutants.py."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """What one mistake changes, and the test that fails with it.

    `text` stands once in the file; in `changed`, MUTANT is true where this mistake is asked for. `builds` are those
    that notice: "" without a sanitizer, "address", "thread".
    """

    operator: str
    kind: str  # barrier, mask, tail, shuffle, coefficient, order
    file: str
    text: str
    changed: str
    test: str  # pytest -k, in test_simt_<operator>.py
    builds: tuple[str, ...] = ("",)


BARRIER = "__syncthreads();"
NO_BARRIER = "if (!MUTANT) __syncthreads();"
NUMBERS_AND_RACES = ("", "thread")
EVERY_SUM = "test_sums_gradients_and_tangents and float32"
EVERY_HALF_SUM = "test_sums_gradients_and_tangents and bfloat16"
EVERY_PRODUCT = "test_products and float32"
MLP_SWEEPS, MLP_PRODUCTS, MLP_SUMS = (f"mlp_critic_loss_{part}.cuh" for part in ("sweeps", "products", "sums"))
EVERY_LOSS = "test_every_result and float32"
DISCRIMINATION = "minibatch_discrimination_cuda.cu"
EVERY_CLOSENESS = "test_every_pass and float32"
STDDEV, EVERY_DEVIATION = "minibatch_stddev_cuda.cu", "test_every_pass and float32"

# fmt: off
WEIGHT_CLIP = {
    "clip_past_the_end": Mutant(
        "weight_clip", "tail", "weight_clip_cuda.cu", "j < min(i + V, end)", "j < min(i + V, end + MUTANT)",
        "test_lengths and float32",
    ),
    "clip_before_the_begin": Mutant(
        "weight_clip", "mask", "weight_clip_cuda.cu", "if (i >= begin && i + V <= end) {\n      Pack",
        "if ((i >= begin || MUTANT) && i + V <= end) {\n      Pack", "test_lengths and float32",
    ),
    "clip_the_neighbour": Mutant(
        "weight_clip", "order", "weight_clip_cuda.cu", "entry[middle].first_block <= blockIdx.x",
        "entry[middle].first_block + MUTANT <= blockIdx.x", "test_a_critic_in_one_launch",
    ),
    "clip_past_the_end_with_gaps": Mutant(
        "weight_clip", "tail", "weight_clip_cuda.cu", "min((chunk + 1) * kChunk, elements)",
        "min((chunk + 1) * kChunk, elements + MUTANT)", "test_chunks_with_gaps and float32",
    ),
}

RMSPROP_CLIP = {
    "step_past_the_end": Mutant(
        "rmsprop_clip", "tail", "rmsprop_clip_cuda.cu", "j < min(i + V, last)", "j < min(i + V, last + MUTANT)",
        "test_lengths and float32",
    ),
    "step_before_the_begin": Mutant(
        "rmsprop_clip", "mask", "rmsprop_clip_cuda.cu", "if (i >= first && i + V <= last) {\n        step_pack",
        "if ((i >= first || MUTANT) && i + V <= last) {\n        step_pack", "test_lengths and float32",
    ),
    "step_the_neighbour": Mutant(
        "rmsprop_clip", "order", "rmsprop_clip_cuda.cu", "entry[middle].first_block <= blockIdx.x",
        "entry[middle].first_block + MUTANT <= blockIdx.x", "test_a_critic_in_one_launch",
    ),
    "step_one_by_one_past_the_end": Mutant(
        "rmsprop_clip", "tail", "rmsprop_clip_cuda.cu", "min((chunk + 1) * kElements, elements)",
        "min((chunk + 1) * kElements, elements + MUTANT)", "test_arrays_that_begin and float32",
    ),
    "every_block_counts_the_step": Mutant(
        "rmsprop_clip", "mask", "rmsprop_clip_cuda.cu", "chunk == 0 && threadIdx.x == 0",
        "(chunk == 0 || MUTANT) && threadIdx.x == 0", "test_lengths and float32",
    ),
    "counts_of_one_lane": Mutant(
        "rmsprop_clip", "shuffle", "rmsprop_clip_update.cuh", "= warp_sum(at_bound)",
        "= MUTANT ? at_bound : warp_sum(at_bound)", "test_stats",
    ),
    "largest_of_half_a_warp": Mutant(
        "rmsprop_clip", "shuffle", "rmsprop_clip_update.cuh", "for (int step = 16; step > 0; step /= 2) {\n      bits",
        "for (int step = MUTANT ? 8 : 16; step > 0; step /= 2) {\n      bits", "test_stats",
    ),
    "decay_of_the_new_weight": Mutant(
        "rmsprop_clip", "coefficient", "rmsprop_clip_update.cuh", "fused(w, weight_decay, g)",
        "fused(w, MUTANT ? weight_decay * 1.001f : weight_decay, g)", "test_lengths and float32",
    ),
    "nothing_found": Mutant(
        "rmsprop_clip", "mask", "rmsprop_clip_cuda.cu", "load_element(found_inf.dtype, found_inf.at, 0) != 0",
        "load_element(found_inf.dtype, found_inf.at, 0) != MUTANT", "test_numbers_on_device",
    ),
}

BIAS_LEAKY_RELU = {
    "rectify_past_the_end": Mutant(
        "bias_leaky_relu", "tail", "bias_leaky_relu_cuda.cu", "j < min(i + V, tile.end)",
        "j < min(i + V, tile.end + MUTANT)", "test_small_sizes and float32",
    ),
    "rectify_before_the_begin": Mutant(
        "bias_leaky_relu", "mask", "bias_leaky_relu_cuda.cu", "max(i, tile.begin)", "(MUTANT ? i : max(i, tile.begin))",
        "test_small_sizes and float32",
    ),
    "the_next_channel_too_late": Mutant(
        "bias_leaky_relu", "mask", "bias_leaky_relu_cuda.cu", "if (--left_ == 0) {", "if (--left_ == -MUTANT) {",
        "test_small_sizes and float32",
    ),
    "the_first_channel_of_a_block": Mutant(
        "bias_leaky_relu", "order", "bias_leaky_relu_cuda.cu", "0 : tile.first_row % C",
        "0 : MUTANT ? 0 : tile.first_row % C", "test_columns and float32",
    ),
    "slope_at_zero": Mutant(
        "bias_leaky_relu", "coefficient", "bias_leaky_relu_sums.cuh", "const Wide<T> out = t * (y > 0 ?",
        "const Wide<T> out = t * ((MUTANT ? y >= 0 : y > 0) ?", "test_special_numbers and float32",
    ),
    "gradient_at_the_bound": Mutant(
        "bias_leaky_relu", "mask", "bias_leaky_relu_sums.cuh", "y < bound && y > -bound",
        "(MUTANT ? y <= bound : y < bound) && y > -bound", "test_special_numbers and float32",
    ),
    "a_part_past_the_row": Mutant(
        "bias_leaky_relu", "tail", "bias_leaky_relu_sums.cuh", "if (j + e < n) {", "if (j + e < n + MUTANT) {",
        "test_rows and float32",
    ),
    "sums_of_columns_without_barrier": Mutant(
        "bias_leaky_relu", "barrier", "bias_leaky_relu_sums.cuh", BARRIER, NO_BARRIER, "test_columns and float32",
        NUMBERS_AND_RACES,
    ),
    "a_chunk_of_one_row_more": Mutant(
        "bias_leaky_relu", "mask", "bias_leaky_relu_sums.cuh", "min(B, (chunk + 1) * chunk_rows)",
        "min(B, (chunk + 1) * chunk_rows + MUTANT)", "test_columns and float32",
    ),
    "parts_of_half_the_lanes": Mutant(
        "bias_leaky_relu", "shuffle", "bias_leaky_relu_sums.cuh", "sum = warp_sum(sum);",
        "sum = MUTANT && lane < 16 ? sum : warp_sum(sum);", "test_columns and float32",
    ),
}

INTERPOLATE = {
    "factors_without_barrier": Mutant(
        "interpolate", "barrier", "combine.cuh", BARRIER, NO_BARRIER, "test_many_rows and float32",
        NUMBERS_AND_RACES,
    ),
    "store_past_the_end": Mutant(
        "interpolate", "tail", "combine.cuh", "begin, min(first + V, tile.end)",
        "begin, min(first + V, tile.end + MUTANT)", "test_small_sizes and float32", ("", "address"),
    ),
    "load_past_the_end": Mutant(
        "interpolate", "tail", "combine.cuh", "if (V > 1 && i >= tile.begin && i + V <= tile.end) {",
        "if (V > 1 && i >= tile.begin && (i + V <= tile.end || MUTANT)) {", "test_small_sizes and float32",
        ("address",),
    ),
    "pack_over_two_rows": Mutant(
        "interpolate", "mask", "combine.cuh", "!whole || i + V > tile.row_end(row) ||",
        "!whole || (i + V > tile.row_end(row) && !MUTANT) ||", "test_small_sizes and float32",
    ),
    "other_factor": Mutant(
        "interpolate", "coefficient", "interpolate_cuda.cu", "1.0 - mix[row]",
        "1.0 - mix[row] * (MUTANT ? 1 + 1e-6 : 1)", "test_small_sizes and float32",
    ),
}

GROUP_NORM = {
    "totals_without_barrier": Mutant(
        "group_norm", "barrier", "group_norm_rows.cuh",
        "+ k] = sum;\n      }\n      __syncthreads();", "+ k] = sum;\n      }\n      if (!MUTANT) __syncthreads();",
        "test_every_pass and float32", NUMBERS_AND_RACES,
    ),
    "columns_without_barrier": Mutant(
        "group_norm", "barrier", "group_norm_params.cuh", BARRIER + "\n  if (thread <",
        NO_BARRIER + "\n  if (thread <", "test_every_pass and float32", NUMBERS_AND_RACES,
    ),
    "group_past_its_end": Mutant(
        "group_norm", "tail", "group_norm_rows.cuh", "min(n - begin, args.part_size)",
        "min(n - begin + MUTANT, args.part_size)", "test_several_blocks and float32", ("", "address"),
    ),
    "column_past_the_last": Mutant(
        "group_norm", "mask", "group_norm_params.cuh", "if (c < norm.C) {\n    const int64_t group",
        "if (c < norm.C + MUTANT) {\n    const int64_t group", "test_every_pass and float32", ("address",),
    ),
    "last_chunk_left_out": Mutant(
        "group_norm", "tail", "group_norm_params.cuh", "to != nullptr && chunk < chunks",
        "to != nullptr && chunk < chunks - MUTANT", "test_every_pass and float32",
    ),
    "channel_of_the_position": Mutant(
        "group_norm", "order", "group_norm_rows.cuh", "S == 1 ? i : i / S", "S == 1 || MUTANT ? i : i / S",
        "test_every_pass and float32",
    ),
    "mean_of_a_rounded_mean": Mutant(
        "group_norm", "coefficient", "group_norm_rows.cuh", "const W shift = static_cast<W>(of.shift), by_x",
        "const W shift = MUTANT ? W{0} : static_cast<W>(of.shift), by_x", "test_far_from_zero",
    ),
    "curvature_of_half_the_direction": Mutant(
        "group_norm", "coefficient", "group_norm_rows.cuh", "by_u = static_cast<W>(of.by_u)",
        "by_u = static_cast<W>(of.by_u) * (MUTANT ? W{0.5} : W{1})", "test_every_pass and float32",
    ),
    "parts_of_the_next_group": Mutant(
        "group_norm", "order", "group_norm_rows.cuh", "args.sums[(row * args.parts + k)",
        "args.sums[(row * args.parts + (MUTANT ? 0 : k))", "test_several_blocks and float32",
    ),
}

NORM_PENALTY = {
    "block_sum_without_barrier": Mutant(
        "norm_penalty", "barrier", "reduce.cuh", BARRIER, NO_BARRIER, "test_every_pass and float32",
        NUMBERS_AND_RACES,
    ),
    "one_shuffle_less": Mutant(
        "norm_penalty", "shuffle", "reduce.cuh", "int step = 16;", "int step = MUTANT ? 8 : 16;",
        "test_every_pass and float32",
    ),
    "shuffle_without_the_last_lane": Mutant(
        "norm_penalty", "mask", "reduce.cuh", "constexpr unsigned kAllLanes = 0xffffffffu;",
        "inline const unsigned kAllLanes = MUTANT ? 0x7fffffffu : 0xffffffffu;", "test_every_pass and float32",
    ),
    "sum_past_the_end": Mutant(
        "norm_penalty", "tail", "row_sums.cuh", "j + e < n ? p[j + e]", "j + e < n + MUTANT ? p[j + e]",
        "test_every_pass and float32", ("", "address"),
    ),
    "last_row_left_out": Mutant(
        "norm_penalty", "mask", "row_sums.cuh", "if (row >= B) {", "if (row >= B - MUTANT) {",
        "test_every_pass and float32",
    ),
    "last_block_left_out": Mutant(
        "norm_penalty", "tail", "row_sums.cuh", "thread < count ? parts[thread]",
        "thread < count - MUTANT ? parts[thread]", "test_large_batches and float32",
    ),
    "second_scale": Mutant(
        "norm_penalty", "coefficient", "norm_penalty_cuda.cu", "scale * second_scale(",
        "(MUTANT ? 1 + 1e-4 : 1) * scale * second_scale(", "test_every_pass and float32",
    ),
}

KERNEL_SUMS = {
    "tile_loaded_too_soon": Mutant(
        "kernel_sums", "barrier", "kernel_sums_sweep.cuh", "__syncthreads();  // nobody reads",
        "if (!MUTANT) __syncthreads();  // nobody reads", EVERY_SUM, NUMBERS_AND_RACES,
    ),
    "tile_read_too_soon": Mutant(
        "kernel_sums", "barrier", "kernel_sums_sweep.cuh", "__syncthreads();\n    if (warp <",
        "if (!MUTANT) __syncthreads();\n    if (warp <", EVERY_SUM, NUMBERS_AND_RACES,
    ),
    "last_gradient_left_out": Mutant(
        "kernel_sums", "tail", "kernel_sums_cuda.cu", "if (at >= z.B * R * z.D ||",
        "if (at >= z.B * R * z.D - MUTANT ||", EVERY_SUM,
    ),
    "shares_without_barrier": Mutant(
        "kernel_sums", "barrier", "kernel_sums_unit.cuh", "const int C = a.mixture.C;\n  __syncthreads();",
        "const int C = a.mixture.C;\n  if (!MUTANT) __syncthreads();", EVERY_SUM, NUMBERS_AND_RACES,
    ),
    "means_without_barrier": Mutant(
        "kernel_sums", "barrier", "pair_points_cuda.cu", BARRIER, NO_BARRIER, EVERY_SUM, NUMBERS_AND_RACES,
    ),
    "value_without_barrier": Mutant(
        "kernel_sums", "barrier", "kernel_sums_cuda.cu", BARRIER, NO_BARRIER,
        "test_value_is_the_weighted_sum and float32", ("thread",),
    ),
    "gradient_past_the_end": Mutant(
        "kernel_sums", "tail", "pair_blocks.cuh", "if (row < count && column < width) {\n        double* sum",
        "if (row < count + MUTANT && column < width) {\n        double* sum", EVERY_SUM,
    ),
    "points_past_the_end": Mutant(
        "kernel_sums", "tail", "pair_tiles.cuh", "row < count ? load_pack<V>(from)",
        "row < count || MUTANT ? load_pack<V>(from)", EVERY_SUM, ("address",),
    ),
    "columns_past_the_end": Mutant(
        "kernel_sums", "mask", "pair_blocks.cuh", "c < columns &&", "c < columns + MUTANT &&", EVERY_SUM,
    ),
    "one_shuffle_less_of_a_row": Mutant(
        "kernel_sums", "shuffle", "pair_blocks.cuh", "return v + __shfl_xor_sync(0xffffffffu, v, 2);",
        "return MUTANT ? 2 * v : v + __shfl_xor_sync(0xffffffffu, v, 2);", EVERY_SUM,
    ),
    "pairs_counted_once": Mutant(
        "kernel_sums", "coefficient", "kernel_sums_sweep.cuh", "(twice ? 2.0 : 1.0)",
        "(twice && !MUTANT ? 2.0 : 1.0)", EVERY_SUM,
    ),
    "rest_left_out": Mutant(
        "kernel_sums", "coefficient", "products.cuh", "mma(part, a.rest, b.leading);",
        "if (!MUTANT) mma(part, a.rest, b.leading);", EVERY_SUM,
    ),
    "rest_of_the_weights_left_out": Mutant(
        "kernel_sums", "coefficient", "products.cuh", "mma(part, a.rest, b.v);",
        "if (!MUTANT) mma(part, a.rest, b.v);", "test_value_is_the_weighted_sum and bfloat16",
    ),
    "second_half_of_a_step_from_elsewhere": Mutant(
        "kernel_sums", "order", "pair_tiles.cuh", "P::right({P::piece(row), P::piece(row + kNext)})",
        "P::right({P::piece(row), P::piece(row + kNext - 2 * MUTANT)})", EVERY_HALF_SUM,
    ),
    "mean_that_leaves_no_exact_points": Mutant(
        "kernel_sums", "mask", "pair_points_cuda.cu", "is_near || !(", "is_near || MUTANT || !(",
        EVERY_HALF_SUM,
    ),
    "largest_point_beyond_the_range": Mutant(
        "kernel_sums", "mask", "pair_points_cuda.cu", "range.lowest >= half &&", "(range.lowest >= half || MUTANT) &&",
        "test_half_width_distances and float16",
    ),
    "weights_of_another_chunk": Mutant(
        "kernel_sums", "coefficient", "kernel_sums_cuda.cu", "a.w_sums_of(chunk, split, b, row)",
        "a.w_sums_of(MUTANT ? 0 : chunk, split, b, row)", "test_gradients_of_far_clusters and float32",
    ),
    "gradient_of_other_points": Mutant(
        "kernel_sums", "coefficient", "point_features.cuh", "return load_element(p.dtype, p.exact_rows, at);",
        "return MUTANT ? p.rows[at] : load_element(p.dtype, p.exact_rows, at);", "test_half_width_points and float16",
    ),
    "products_of_centred_points": Mutant(
        "kernel_sums", "coefficient", "pair_blocks.cuh", "return s + sums(at);", "return s + (MUTANT ? 0 : sums(at));",
        EVERY_SUM,
    ),
    "tangent_of_centred_products": Mutant(
        "kernel_sums", "coefficient", "kernel_sums_tile.cuh", "+ along_shifts[m](at);",
        "+ (MUTANT ? T{0} : along_shifts[m](at));", EVERY_SUM,
    ),
    "gradient_of_centred_products": Mutant(
        "kernel_sums", "coefficient", "kernel_sums_cuda.cu", "products += product_sums[0];",
        "products += MUTANT ? 0 : product_sums[0];", EVERY_SUM,
    ),
    "other_half_of_the_product_sums": Mutant(
        "kernel_sums", "coefficient", "kernel_sums_sweep.cuh", "sum + products / 2",
        "sum + products / (MUTANT ? 1 : 2)", EVERY_SUM,
    ),
    "no_tangent_of_the_mean": Mutant(
        "kernel_sums", "coefficient", "kernel_sums_cuda.cu", "products * a.points.along.origins[at] +",
        "(MUTANT ? 0 : products) * a.points.along.origins[at] +", EVERY_SUM,
    ),
    "products_without_the_diagonal": Mutant(
        "kernel_sums", "mask", "kernel_sums_tile.cuh", "a.diagonal ? counted_pairs",
        "a.diagonal && !MUTANT ? counted_pairs", EVERY_SUM,
    ),
    "diagonal_counted_again": Mutant(
        "kernel_sums", "mask", "kernel_sums_cuda.cu", "is_of_products(a.mixture.kind(at % C)) ? 0",
        "is_of_products(a.mixture.kind(at % C)) && !MUTANT ? 0", EVERY_SUM,
    ),
    "mean_that_drowns_products": Mutant(
        "kernel_sums", "mask", "mixture.cuh", "points.has_products ? points.origin[b]",
        "points.has_products && !MUTANT ? points.origin[b]",
        "test_products_far_from_the_origin_are_served_by_double and float32",
    ),
    "points_that_nearly_coincide": Mutant(
        "kernel_sums", "mask", "pair_blocks.cuh", "s <= kCoincident * sums(at) ?",
        "s <= kCoincident * sums(at) && !MUTANT ?", "test_coincident_points and float64",
    ),
}

KERNEL_MATVEC = {
    "points_loaded_too_soon": Mutant(
        "kernel_matvec", "barrier", "kernel_matvec_cuda.cu",
        "__syncthreads();  // nobody reads", "if (!MUTANT) __syncthreads();  // nobody reads",
        EVERY_PRODUCT, NUMBERS_AND_RACES,
    ),
    "columns_loaded_too_soon": Mutant(
        "kernel_matvec", "barrier", "kernel_matvec_cuda.cu",
        "__syncthreads();\n    with_wide_products", "if (!MUTANT) __syncthreads();\n    with_wide_products",
        EVERY_PRODUCT, NUMBERS_AND_RACES,
    ),
    "points_read_too_soon": Mutant(
        "kernel_matvec", "barrier", "kernel_matvec_cuda.cu", "__syncthreads();\n    if (row < unit.count) {",
        "if (!MUTANT) __syncthreads();\n    if (row < unit.count) {", EVERY_PRODUCT, NUMBERS_AND_RACES,
    ),
    "columns_read_too_soon": Mutant(
        "kernel_matvec", "barrier", "kernel_matvec_cuda.cu", "__syncthreads();\n    if (row >= unit.count) {",
        "if (!MUTANT) __syncthreads();\n    if (row >= unit.count) {", EVERY_PRODUCT, NUMBERS_AND_RACES,
    ),
    "last_product_left_out": Mutant(
        "kernel_matvec", "tail", "kernel_matvec_cuda.cu", "if (at >= a.points.z.B * rows * a.P) {",
        "if (at >= a.points.z.B * rows * a.P - MUTANT) {", EVERY_PRODUCT,
    ),
    "points_with_themselves": Mutant(
        "kernel_matvec", "mask", "pair_blocks.cuh", "c != r + self", "(c != r + self || MUTANT)", EVERY_PRODUCT,
    ),
    "product_past_the_end": Mutant(
        "kernel_matvec", "tail", "kernel_matvec_cuda.cu", "row < count && unit.p", "(row < count || MUTANT) && unit.p",
        EVERY_PRODUCT, ("address",),
    ),
    "weights_of_the_kernels": Mutant(
        "kernel_matvec", "coefficient", "kernel_matvec_cuda.cu",
        "static_cast<T>(a.weights[c])", "static_cast<T>(a.weights[MUTANT ? 0 : c])", EVERY_PRODUCT,
    ),
    "kernels_of_products_left_out": Mutant(
        "kernel_matvec", "coefficient", "kernel_matvec_cuda.cu", "evaluate<true>(",
        "if (!MUTANT) evaluate<true>(", EVERY_PRODUCT,
    ),
}

MLP_CRITIC_LOSS = {
    "panel_read_too_soon": Mutant(
        "mlp_critic_loss", "barrier", MLP_SWEEPS, "__syncthreads();\n    T* const done",
        "if (!MUTANT) __syncthreads();\n    T* const done", EVERY_LOSS, NUMBERS_AND_RACES,
    ),
    "tangent_read_too_soon": Mutant(
        "mlp_critic_loss", "barrier", MLP_SWEEPS, "}\n    }\n    __syncthreads();\n  }\n",
        "}\n    }\n    if (!MUTANT) __syncthreads();\n  }\n", EVERY_LOSS, NUMBERS_AND_RACES,
    ),
    "partials_read_too_soon": Mutant(
        "mlp_critic_loss", "barrier", MLP_PRODUCTS, "__syncthreads();\n#pragma",
        "if (!MUTANT) __syncthreads();\n#pragma", EVERY_LOSS, NUMBERS_AND_RACES,
    ),
    "partials_written_too_soon": Mutant(
        "mlp_critic_loss", "barrier", MLP_PRODUCTS, "if (begin > 0) {", "if (begin > 0 && !MUTANT) {",
        "test_columns_of_a_block and float64", NUMBERS_AND_RACES,
    ),
    "stage_read_too_soon": Mutant(
        "mlp_critic_loss", "barrier", MLP_SUMS, "__syncthreads();\n      }",
        "if (!MUTANT) __syncthreads();\n      }", EVERY_LOSS, NUMBERS_AND_RACES,
    ),
    "sum_of_scores_too_soon": Mutant(
        "mlp_critic_loss", "barrier", MLP_SUMS, "__syncthreads();  // the sum",
        "if (!MUTANT) __syncthreads();  // the sum", EVERY_LOSS, ("thread",),
    ),
    "lanes_added_twice": Mutant(
        "mlp_critic_loss", "shuffle", MLP_PRODUCTS, "__shfl_xor_sync(kAllLanes, sent, step)",
        "__shfl_xor_sync(kAllLanes, sent, MUTANT && step == 16 ? 8 : step)", EVERY_LOSS,
    ),
    "weights_past_the_end": Mutant(
        "mlp_critic_loss", "tail", MLP_PRODUCTS, "at + e < n ? row[at + e]",
        "at + e < n + MUTANT ? row[at + e]", EVERY_LOSS, ("address",),
    ),
    "whole_packs_past_the_end": Mutant(
        "mlp_critic_loss", "tail", MLP_PRODUCTS, "if (at < n) {\n      pack = load_pack<V>(row + at);",
        "if (at < n + MUTANT) {\n      pack = load_pack<V>(row + at);", "test_whole_packs and float32", ("address",),
    ),
    "features_past_the_panel": Mutant(
        "mlp_critic_loss", "mask", MLP_PRODUCTS, "packed || at + e < n ?",
        "packed || at + e < n + MUTANT ?", EVERY_LOSS,
    ),
    "rows_past_the_layer": Mutant(
        "mlp_critic_loss", "tail", MLP_PRODUCTS, "if (o < out) {", "if (o < out + MUTANT) {", EVERY_LOSS,
        ("", "address"),
    ),
    "last_terms_left_out": Mutant(
        "mlp_critic_loss", "tail", MLP_PRODUCTS, "int o = whole + split; o < out;",
        "int o = whole + split; o < out - MUTANT;", EVERY_LOSS,
    ),
    "columns_past_the_layer": Mutant(
        "mlp_critic_loss", "mask", MLP_PRODUCTS, "if (i < in) {", "if (i < in + MUTANT) {",
        "test_columns_of_a_block and float32",
    ),
    "samples_kept_past_the_batch": Mutant(
        "mlp_critic_loss", "tail", MLP_SWEEPS, "at < count * packs;", "at < (count + MUTANT) * packs;",
        EVERY_LOSS,
    ),
    "norms_of_no_sample": Mutant(
        "mlp_critic_loss", "tail", MLP_SWEEPS, "s < count; s += kSweepWarps",
        "s < count + MUTANT; s += kSweepWarps", EVERY_LOSS,
    ),
    "real_and_fake_exchanged": Mutant(
        "mlp_critic_loss", "coefficient", MLP_SWEEPS, "kind == 1 ? -mean", "(kind == 1) != MUTANT ? -mean",
        EVERY_LOSS,
    ),
    "biases_of_mixed_samples": Mutant(
        "mlp_critic_loss", "mask", MLP_SUMS, "first_sample + k < a.B ?",
        "first_sample + k < a.B && !MUTANT ?", EVERY_LOSS,
    ),
    "samples_past_the_end": Mutant(
        "mlp_critic_loss", "tail", MLP_SUMS, "if (row < samples &&", "if (row < samples + MUTANT &&",
        EVERY_LOSS,
    ),
    "gradients_past_the_end": Mutant(
        "mlp_critic_loss", "tail", MLP_SUMS, "first + e + v < layer.in) {",
        "first + e + v < layer.in + MUTANT) {", EVERY_LOSS,
    ),
    "whole_gradients_past_the_end": Mutant(
        "mlp_critic_loss", "tail", MLP_SUMS, "o < layer.out && first + e < layer.in) {",
        "o < layer.out && first + e < layer.in + MUTANT) {", "test_whole_packs and float32",
    ),
    "tile_of_the_layer_before": Mutant(
        "mlp_critic_loss", "order", MLP_SUMS, "a.layers[l + 1].first_tile <= tile",
        "a.layers[l + 1].first_tile + MUTANT <= tile", EVERY_LOSS,
    ),
}

MINIBATCH_DISCRIMINATION = {
    "tile_before_it_is_there": Mutant(
        "minibatch_discrimination", "barrier", DISCRIMINATION,
        "    __syncthreads();\n#pragma unroll\n    for (int n = 0",
        "    if (!MUTANT) __syncthreads();\n#pragma unroll\n    for (int n = 0",
        EVERY_CLOSENESS, NUMBERS_AND_RACES,
    ),
    "tile_while_it_is_read": Mutant(
        "minibatch_discrimination", "barrier", DISCRIMINATION,
        "__syncthreads();  // nobody reads the last tile any more", NO_BARRIER, EVERY_CLOSENESS, NUMBERS_AND_RACES,
    ),
    "chunk_before_it_is_there": Mutant(
        "minibatch_discrimination", "barrier", DISCRIMINATION, "unit.chunk, z);\n    __syncthreads();",
        "unit.chunk, z);\n    if (!MUTANT) __syncthreads();", EVERY_CLOSENESS, NUMBERS_AND_RACES,
    ),
    "parts_before_they_are_there": Mutant(
        "minibatch_discrimination", "barrier", DISCRIMINATION, "own[0] = sum;\n    __syncthreads();",
        "own[0] = sum;\n    if (!MUTANT) __syncthreads();", EVERY_CLOSENESS, NUMBERS_AND_RACES,
    ),
    "close_to_itself": Mutant(
        "minibatch_discrimination", "mask", DISCRIMINATION, "other != sample &&", "(other != sample || MUTANT) &&",
        EVERY_CLOSENESS,
    ),
    "close_to_nobody": Mutant(
        "minibatch_discrimination", "tail", DISCRIMINATION, "other < unit.end &&", "other < unit.end + MUTANT &&",
        EVERY_CLOSENESS,
    ),
    "numbers_past_the_end": Mutant(
        "minibatch_discrimination", "tail", DISCRIMINATION, "row < count && first + k < batch.K ?",
        "row < count && first + k < batch.K + MUTANT ?", EVERY_CLOSENESS, ("", "address"),
    ),
    "rows_that_were_not_asked_for": Mutant(
        "minibatch_discrimination", "mask", DISCRIMINATION, "if (sample >= batch.begin && sample < batch.end)",
        "if (sample >= batch.begin && sample < batch.end + MUTANT)", EVERY_CLOSENESS,
    ),
    "others_that_were_not_asked_for": Mutant(
        "minibatch_discrimination", "mask", DISCRIMINATION, "rows, asked_for ? 0",
        "rows, asked_for && !MUTANT ? 0", EVERY_CLOSENESS,
    ),
    "other_warps_forgotten": Mutant(
        "minibatch_discrimination", "order", DISCRIMINATION, "warp < kWarps; ++warp", "warp < kWarps - MUTANT; ++warp",
        EVERY_CLOSENESS,
    ),
    "sign_of_zero": Mutant(
        "minibatch_discrimination", "coefficient", DISCRIMINATION, "difference == 0 ? T{0} :",
        "difference == 0 && !MUTANT ? T{0} :", EVERY_CLOSENESS,
    ),
    "slope_of_the_wrong_sign": Mutant(
        "minibatch_discrimination", "coefficient", DISCRIMINATION, "-exponential(-c[n]) * slopes[n]",
        "(MUTANT ? 1 : -1) * exponential(-c[n]) * slopes[n]", EVERY_CLOSENESS,
    ),
}

MINIBATCH_STDDEV = {
    "deviations_past_the_end": Mutant(
        "minibatch_stddev", "tail", STDDEV, "end = min(P, (chunk", "end = min(P + MUTANT, (chunk", EVERY_DEVIATION,
    ),
    "deviations_of_two_chunks": Mutant(
        "minibatch_stddev", "tail", STDDEV, "(chunk + 1) * kRowChunk)", "(chunk + 1 + MUTANT) * kRowChunk)",
        EVERY_DEVIATION,
    ),
    "means_of_one_warp": Mutant(
        "minibatch_stddev", "shuffle", STDDEV, "sum = block_sum<kRowThreads>(sum);",
        "if (!MUTANT) sum = block_sum<kRowThreads>(sum);", EVERY_DEVIATION,
    ),
    "deviation_of_one_less": Mutant(
        "minibatch_stddev", "coefficient", STDDEV, "sqrt(squares / G +", "sqrt(squares / (G - 0.01 * MUTANT) +",
        EVERY_DEVIATION,
    ),
    "mean_of_the_tangent_kept": Mutant(
        "minibatch_stddev", "coefficient", STDDEV, "- moments.u_mean -", "- (MUTANT ? 0 : moments.u_mean) -",
        EVERY_DEVIATION,
    ),
    "last_chunk_forgotten": Mutant(
        "minibatch_stddev", "tail", STDDEV, "chunk < chunks; ++chunk", "chunk < chunks - MUTANT; ++chunk",
        EVERY_DEVIATION,
    ),
    "next_group": Mutant(
        "minibatch_stddev", "order", STDDEV, "row = blockIdx.x / n.chunks, chunk",
        "row = (blockIdx.x + MUTANT) / (n.chunks + MUTANT), chunk", EVERY_DEVIATION,
    ),
}
# fmt: on

MUTANTS = {
    **WEIGHT_CLIP,
    **RMSPROP_CLIP,
    **BIAS_LEAKY_RELU,
    **GROUP_NORM,
    **INTERPOLATE,
    **NORM_PENALTY,
    **KERNEL_SUMS,
    **KERNEL_MATVEC,
    **MLP_CRITIC_LOSS,
    **MINIBATCH_DISCRIMINATION,
    **MINIBATCH_STDDEV,
}
