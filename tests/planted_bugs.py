"""Plants known bugs, one at a time, in a copy of the sources, and shows that the named test catches each.

    python tests/planted_bugs.py [NAME ...]

A suite that cannot fail proves nothing. Needs a compiler, cmake, pybind11 and what the tests need. A bug takes
seconds or, in a header that every instruction set compiles, minutes. tests/README.md lists what each bug is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Bug:
    """`before` occurs once in `file` and becomes `after`; `test` is a pytest selection, or "cpp:" and a C++ test."""

    name: str
    file: str
    before: str
    after: str
    test: str


REFERENCE = "tests/test_network_reference.py -k"
BUGS = (
    Bug(
        "a load's tail is one lane short",
        "csrc/kernels/cpu/vector.h",
        "_mm512_maskz_loadu_ps(static_cast<__mmask16>(some.mask), p)",
        "_mm512_maskz_loadu_ps(static_cast<__mmask16>(some.mask >> 1), p)",
        "tests/test_exact_integers.py",
    ),
    Bug(
        "a store's tail is one lane long",
        "csrc/kernels/cpu/vector.h",
        "_mm512_mask_storeu_ps(p, static_cast<__mmask16>(some.mask), (__m512)v)",
        "_mm512_mask_storeu_ps(p, static_cast<__mmask16>(some.mask << 1 | 1), (__m512)v)",
        "cpp:kernels",
    ),
    Bug(
        "a sum cut into stretches reads the first stretch of weights again",
        "csrc/kernels/cpu/micro_kernel.h",
        "w += length * width * operand_parts<T>;",
        "w += 0;",
        "cpp:kernels",
    ),
    Bug(
        "laid-out columns of A begin where those of the tile before do",
        "csrc/kernels/cpu/register_stretch.h",
        "k += RC_TILE_ROWS, to += tile_size",
        "k += RC_TILE_ROWS, to += tile_stride",
        "cpp:kernels",
    ),
    Bug(
        "the last of a tile's columns of A is not laid out",
        "csrc/kernels/cpu/register_stretch.h",
        "read(from + at, static_cast<int>(count - at)).store(to + at);",
        "read(from + at, static_cast<int>(count - at - 1)).store(to + at);",
        "cpp:kernels",
    ),
    Bug(
        "pieces of a stretch take the first rows of δ again",
        "csrc/kernels/cpu/register_stretch.h",
        "delta_.data + first * delta_.stride,",
        "delta_.data,",
        "cpp:kernels",
    ),
    Bug(
        "two k of a tile are one and the same row of W",
        "csrc/kernels/cpu/accumulate.h",
        "accumulate_one(a, 1, w + w_step, acc, ahead);",
        "accumulate_one(a, 1, w, acc, ahead);",
        "cpp:kernels",
    ),
    Bug(
        "the second pointer to rows of A has the first ones again",
        "csrc/kernels/cpu/accumulate.h",
        "pointers_[1] = opaque(a + of_a_pointer * row_step);",
        "pointers_[1] = opaque(a);",
        "cpp:kernels",
    ),
    Bug(
        "the third pointer to rows of A has the second one's again",
        "csrc/kernels/cpu/accumulate.h",
        "pointers_[2] = opaque(a + 2 * of_a_pointer * row_step);",
        "pointers_[2] = opaque(a + of_a_pointer * row_step);",
        "cpp:kernels",
    ),
    Bug(
        "numbers made floats: a later piece of a sum takes the place of those before it",
        "csrc/kernels/cpu/widened_kernel.h",
        "rows, !written, both);",
        "rows, true, both);",
        "cpp:bfloat16",
    ),
    Bug(
        "numbers made floats: a row's rest is left as it was",
        "csrc/kernels/cpu/widened_kernel.h",
        "if (k < n) read(",
        "if (k > n) read(",
        "cpp:bfloat16",
    ),
    Bug(
        "a panel's last column that there is is not finished",
        "csrc/kernels/cpu/epilogue.h",
        "SomeColumns<2>{FirstLanes(lanes[1])}",
        "SomeColumns<2>{FirstLanes(lanes[1] - 1)}",
        "cpp:epilogues",
    ),
    Bug(
        "rows that are finished a few at a time: a rest takes the first sums again",
        "csrc/kernels/cpu/epilogue.h",
        "for (; i < rows; ++i) finish_few<1>(sum, i, row, columns);",
        "for (; i < rows; ++i) finish_few<1>(sum - 2 * i * lanes_of<T>, i, row, columns);",
        "cpp:epilogues",
    ),
    Bug(
        "a column summed along k starts each vector of k at the first",
        "csrc/kernels/cpu/narrow.h",
        "return read(across + (k / width * columns + column) * width + k % width);",
        "return read(across + (k / width * columns + column) * width);",
        "cpp:kernels",
    ),
    Bug(
        "pairs: a column summed along k is the one beside it",
        "csrc/kernels/cpu/narrow.h",
        "read_pairs(pairs + width), column % 2);",
        "read_pairs(pairs + width), 0);",
        "cpp:bfloat16",
    ),
    Bug(
        "pairs: what follows the end of a row is summed along with it",
        "csrc/kernels/cpu/narrow.h",
        "row(const bfloat16* a, int n) { return read_pairs(a, n); }",
        "row(const bfloat16* a, int) { return read_pairs(a); }",
        "cpp:bfloat16",
    ),
    Bug(
        "pairs: a weight gradient's last columns are the panel's first",
        "csrc/kernels/cpu/narrow.h",
        "tail.delta.data += at * (computes_itself<T> ? 1 : 2);",
        "tail.delta.data += computes_itself<T> ? at : 0;",
        "cpp:bfloat16",
    ),
    Bug(
        "the vector beside a weight gradient's last columns is left as it was",
        "csrc/kernels/cpu/narrow.h",
        "k < inner && tail.first && at == 0; ++k)",
        "k < 0; ++k)",
        "cpp:kernels",
    ),
    Bug(
        "a weight gradient forgets its earlier stretches of rows",
        "csrc/kernels/cpu/backward_weights.h",
        "add_stretch(stretch, stretch.begin == 0 && !args.accumulate, share);",
        "add_stretch(stretch, true, share);",
        "cpp:updates",
    ),
    Bug(
        "the transposed copy misses its last block of rows",
        "csrc/kernels/cpu/backward_weights.h",
        "write_rows(block, outs, operands.transposed",
        "write_rows(block, outs - 1, operands.transposed",
        f"{REFERENCE} 'five_steps and momentum'",
    ),
    Bug(
        "ReLU's derivative at zero is one",
        "csrc/math/activation.h",
        "return select(a <= T(0), T(0), T(1));",
        "return select(a < T(0), T(0), T(1));",
        "tests/test_exact_integers.py",
    ),
    Bug(
        "ReLU swallows NaN",
        "csrc/math/functions.h",
        "return select(z <= T(0), T(0), z);",
        "return select(z > T(0), z, T(0));",
        "cpp:functions",
    ),
    Bug(
        "a skip reads one layer too late",
        "csrc/topology/plan.cpp",
        "const BufferId from = activations_[number - layer.skips[i].back];",
        "const BufferId from = activations_[number - layer.skips[i].back + 1];",
        f"{REFERENCE} outputs",
    ),
    Bug(
        "a skip's gradient goes one layer too far",
        "csrc/topology/plan.cpp",
        "const std::int64_t from = number - layer.skips[i].back;\n            const int weight",
        "const std::int64_t from = number - layer.skips[i].back + 1;\n            const int weight",
        f"{REFERENCE} outputs",
    ),
    Bug(
        "fixed skips are trained",
        "csrc/topology/plan.cpp",
        "if (layer.skips[i].kind == SkipKind::learned) add_weights",
        "if (layer.skips[i].kind != SkipKind::identity) add_weights",
        "tests/test_updates.py",
    ),
    Bug(
        "both dropouts of a layer draw the same mask",
        "csrc/topology/plan.cpp",
        "static_cast<std::uint32_t>(2 * number + 1)",
        "static_cast<std::uint32_t>(2 * number)",
        "tests/test_random.py",
    ),
    Bug(
        "what is made again comes after those who read it",
        "csrc/topology/made_again.cpp",
        "id == step.argument)) first = s;",
        "id == step.argument)) (void)s;",
        f"{REFERENCE} gradients",
    ),
    Bug(
        "what is made again is kept as well",
        "csrc/topology/made_again.cpp",
        "if (id == kept) id = step.out;",
        "if (id == kept) first = s;",
        "tests/test_strategies.py -k kept",
    ),
    Bug(
        "what two phases share is each thread's own",
        "csrc/topology/memory.cpp",
        "options.weights_by_tile && b.first_use == b.last_use)",
        "options.weights_by_tile && b.first_use + 1 >= b.last_use)",
        "tests/test_strategies.py -k threads",
    ),
    Bug(
        "what only forward reads of a tile lies on the tape",
        "csrc/topology/memory.cpp",
        "return forward && b.last_use >= times.backward ? Place::kept : Place::tile;",
        "return forward ? Place::kept : Place::tile;",
        "tests/test_torch_threads.py -k other_widths",
    ),
    Bug(
        "a buffer's life ends one step early",
        "csrc/topology/memory.cpp",
        "const bool apart = other->last_use < mine.first_use || mine.last_use < other->first_use;",
        "const bool apart = other->last_use <= mine.first_use || mine.last_use <= other->first_use;",
        f"{REFERENCE} outputs",
    ),
    Bug(
        "the batch's variance is unbiased",
        "csrc/kernels/columns.h",
        "set_coefficients(out, at, all.mean, all.squares / static_cast<double>(args.sums.rows),",
        "set_coefficients(out, at, all.mean, all.squares / (static_cast<double>(args.sums.rows) - 1),",
        f"{REFERENCE} outputs",
    ),
    Bug(
        "the running variance is biased",
        "csrc/kernels/columns.h",
        "carry_on(before.running_var, all.squares / (static_cast<double>(args.sums.rows) - 1));",
        "carry_on(before.running_var, all.squares / static_cast<double>(args.sums.rows));",
        f"{REFERENCE} 'five_steps and momentum'",
    ),
    Bug(
        "no barrier between a phase and its statistics",
        "csrc/runtime/executor.cpp",
        "        team.barrier();\n        if (ends_in_sums(phase)) {",
        "        if (ends_in_sums(phase)) {",
        "tests/test_determinism.py",
    ),
    Bug(
        "no barrier between statistics and the next phase",
        "csrc/runtime/executor.cpp",
        "            finish(team, phase.steps.back(), sums, batch.continues);\n            team.barrier();",
        "            finish(team, phase.steps.back(), sums, batch.continues);",
        "tests/test_determinism.py",
    ),
    Bug(
        "statistics are summed over a share for each thread",
        "csrc/runtime/tiles.h",
        "while (chunk < 64 && chunk * 8 < rows) chunk *= 2;",
        "while (chunk < 16 * get_num_threads() && chunk * 8 < rows) chunk *= 2;",
        "tests/test_determinism.py",
    ),
    Bug(
        "tiles add their shares of a gradient in any order",
        "csrc/runtime/executor.cpp",
        "    team.wait_for(turn, tile);\n",
        "",
        "tests/test_strategies.py",
    ),
    Bug(
        "threads that divide columns do not wait for the others' columns",
        "csrc/runtime/executor.cpp",
        "            team.barrier();\n            if (!computes_itself<T> && whole.output >= 0",
        "            if (!computes_itself<T> && whole.output >= 0",
        "tests/test_columns.py",
    ),
    Bug(
        "room for statistics is that of the largest micro-batch",
        "csrc/runtime/executor.cpp",
        "2 * most_statistics_chunks(rows) * phase",
        "2 * sums_of(phase, rows).chunks() * phase",
        "tests/test_columns.py",
    ),
    Bug(
        "columns are divided where tiles are to add up gradients",
        "csrc/runtime/tiles.cpp",
        "            if (step.kind == StepKind::weights) return false;",
        "            if (false) return false;",
        "tests/test_columns.py",
    ),
    Bug(
        "few rows are divided among threads that gain nothing by it",
        "csrc/runtime/cost_model.h",
        "(divided ? rows * multiply_adds : 0)",
        "(divided || rows > 0 ? rows * multiply_adds : 0)",
        "tests/test_columns.py -k few_rows",
    ),
    Bug(
        "of divided columns the first are measured again and again",
        "csrc/runtime/step_runner.cpp",
        "{rows.data + columns.first, rows.stride}",
        "{rows.data, rows.stride}",
        "tests/test_columns.py",
    ),
    Bug(
        "on tiles a bias' gradient begins anew with each stretch",
        "csrc/kernels/cpu/backward_weights.h",
        "stretch.add_sum_of_rows(sum, stretch.begin == 0 && !args.accumulate);",
        "stretch.add_sum_of_rows(sum, !args.accumulate);",
        "cpp:bfloat16",
    ),
    Bug(
        "a mask's numbers are those of the block they begin in",
        "csrc/kernels/cpu/dropout.h",
        "const auto skipped = static_cast<int>(next % 4);",
        "const auto skipped = static_cast<int>(0 * next);",
        "cpp:elementwise",
    ),
    Bug(
        "what dropout kept is not scaled on the way back through a ReLU",
        "csrc/runtime/step_arguments.cpp",
        "args.scale = DropoutRule<Compute<T>>(step.dropout).kept;",
        "args.scale = 1;",
        "tests/test_network_reference.py -k outputs",
    ),
    Bug(
        "an epilogue writes beyond its row",
        "csrc/kernels/cpu/normalisation.h",
        "write(d[v], args.out.data + i * args.out.stride + j + v * V::lanes, n);",
        "write(d[v], args.out.data + i * args.out.stride + j + v * V::lanes, n + 1);",
        "cpp:norms",
    ),
    Bug(
        "a vector of losses has the first row's label in every lane",
        "csrc/kernels/cpu/loss_rows.h",
        "static_cast<double>(args.labels[row + i])",
        "static_cast<double>(args.labels[row])",
        "cpp:elementwise",
    ),
    Bug(
        "a vector of losses keeps the columns of the block before",
        "csrc/kernels/cpu/loss_rows.h",
        "j < first_ || j >= first_ + lanes",
        "j < first_ || j > first_ + lanes",
        "cpp:elementwise",
    ),
    Bug(
        "a gate's gradient takes the sigmoid for its derivative",
        "csrc/math/gate.h",
        "return gradient * (h - x) * t * (V(1) - t);",
        "return gradient * (h - x) * t;",
        "cpp:elementwise",
    ),
    Bug(
        "a derivative reads the output where the argument was kept",
        "csrc/math/activation.h",
        "if (saved_is_argument) saved = Activation::forward(saved);",
        "(void)saved_is_argument;",
        "cpp:epilogues",
    ),
    Bug(
        "a micro-batch draws the masks of the first",
        "csrc/runtime/step_arguments.cpp",
        "args.first_row = frame.first_row + begin, args.first_column",
        "args.first_row = begin, args.first_column",
        "tests/test_trainer.py -k accumul",
    ),
    Bug(
        "a micro-batch forgets the norms' gradients of those before it",
        "csrc/runtime/norms.cpp",
        "            frozen_,\n            continues,",
        "            frozen_,\n            false,",
        "tests/test_trainer.py -k accumul",
    ),
    Bug(
        "a micro-batch carries on the statistics of the step before",
        "csrc/runtime/norms.cpp",
        "continues ? norm.next_mean.data() : store_.values(own.running_mean)",
        "store_.values(own.running_mean)",
        "tests/test_trainer.py -k accumul",
    ),
    Bug(
        "vectors beyond the first call's are not updated",
        "csrc/runtime/vector_calls.h",
        "if (args_.count == vectors_of_call) call();",
        "if (args_.count == vectors_of_call) return;",
        "tests/test_updates.py",
    ),
    Bug(
        "the gate's carry is its transform",
        "csrc/kernels/cpu/elementwise.h",
        "write(g * rest, args.d_x.data",
        "write(g * t, args.d_x.data",
        f"{REFERENCE} outputs",
    ),
    Bug(
        "Nesterov's step forgets the momentum",
        "csrc/math/optimizer.h",
        "h.nesterov ? multiply_add(V(h.momentum), velocity, g) : velocity",
        "h.nesterov ? g + velocity : velocity",
        f"{REFERENCE} 'five_steps and nesterov'",
    ),
    Bug(
        "Adam's bias correction is one step late",
        "csrc/train/optimizer_state.cpp",
        "const double t = static_cast<double>(steps_ + between + 1);",
        "const double t = static_cast<double>(steps_ + between + 2);",
        "tests/test_updates.py",
    ),
    Bug(
        "clipping leaves the norms' gradients out",
        "csrc/train/weight_gradients.cpp",
        "    if (team.rank() == 0) visit_norms(sum_to(squares_.data() + pair * units_.size()));\n",
        "",
        "tests/test_trainer.py -k clip",
    ),
    Bug(
        "folding a norm for inference forgets the mean",
        "csrc/math/normalisation.h",
        "static_cast<double>(shift) - static_cast<double>(mean) * static_cast<double>(scale)",
        "static_cast<double>(shift)",
        f"{REFERENCE} outputs",
    ),
    Bug(
        "folded weights stay as they were after a step",
        "csrc/train/backpropagation.cpp",
        "        model_.parameters_changed();\n",
        "",
        "tests/test_updates.py",
    ),
    Bug(
        "a step that met NaN is taken",
        "csrc/kernels/update_ops.h",
        "return !outcome || (outcome->finite && !outcome->may_overflow && !outcome->follows);",
        "return !outcome || (!outcome->may_overflow && !outcome->follows);",
        "tests/test_training_bad_inputs.py tests/test_trainer.py",
    ),
    Bug(
        "an odd last row is paired with the row after it",
        "csrc/kernels/cpu/stretch.h",
        "return row + 1 < end ? words | read_words(low + from.stride, n) << 16 : words;",
        "return words | read_words(low + from.stride, n) << 16;",
        "cpp:bfloat16",
    ),
    Bug(
        "the last pair of rows of a bfloat16 operand is not refreshed",
        "csrc/kernels/cpu/backward_weights.h",
        "write_rows(block, rows, operands.panels",
        "write_rows(block, rows - 2, operands.panels",
        "cpp:bfloat16",
    ),
    Bug(
        "a step of tiles reads beyond the end of a row",
        "csrc/kernels/cpu/tile_kernel.h",
        "std::memset(to[i] + length, 0, static_cast<std::size_t>(step_length - length) * sizeof **to);",
        "std::memcpy(to[i] + length, from + i * stride + length, static_cast<std::size_t>(length < 24 ? 16 : 0));",
        "cpp:bfloat16",
    ),
    Bug(
        "both tiles of a panel are its left half",
        "csrc/kernels/cpu/tile_kernel.h",
        "tile_load<7>(w + sums_width, 2 * sums_width);",
        "tile_load<7>(w, 2 * sums_width);",
        "cpp:bfloat16",
    ),
    Bug(
        "a seventeenth row of tiles is forgotten",
        "csrc/kernels/cpu/tile_kernel.h",
        "tile_store<1>(to + word_lanes, sums_width);\n    if (rows <= tile_height) return;",
        "tile_store<1>(to + word_lanes, sums_width);\n    if (rows <= tile_height + 1) return;",
        "cpp:bfloat16",
    ),
    Bug(
        "a chunk of a panel forgets the sums of those before it",
        "csrc/kernels/cpu/tile_panels.h",
        "chunk == 0 ? clear_sums() : load_sums(sum.at[0], rows_here);",
        "clear_sums();",
        "cpp:bfloat16",
    ),
    Bug(
        "the last rows of a block that is finished beside the next are left out",
        "csrc/kernels/cpu/tile_panels.h",
        "while (done_ < rows_) call();",
        "while (done_ + at_once < rows_) call();",
        "cpp:bfloat16",
    ),
    Bug(
        "the largest of a block that is finished in place is forgotten",
        "csrc/kernels/cpu/tile_panels.h",
        "            look(at_once, panel_ * sums_width, sums_width);\n",
        "",
        "cpp:bfloat16",
    ),
    Bug(
        "low halves of A meet those of W",
        "csrc/kernels/cpu/tile_kernel.h",
        "load_w(w + step_length * sums_width);",
        "load_w(w + step_length * sums_width), load_a<4, once>(upper + next_plane, stride);",
        "cpp:bfloat16",
    ),
    Bug(
        "low halves are taken from the next block of numbers",
        "csrc/kernels/cpu/tile_panels.h",
        "const auto whole = next.whole(begin + row, here - step);",
        "auto whole = next.whole(begin + row, here - step);\n"
        "                        whole.a += planes<T> == 2 && whole.count > 1 ? 1 : 0;",
        "cpp:bfloat16",
    ),
    Bug(
        "what overflows a high half has a low half too",
        "csrc/kernels/cpu/vector_both.h",
        "_mm512_maskz_mov_epi16(finite, (__m512i)low)",
        "_mm512_maskz_mov_epi16(finite | 1, (__m512i)low)",
        "cpp:bfloat16",
    ),
    Bug(
        "two columns of A change places as they are laid out for tiles",
        "csrc/kernels/cpu/tile_stretch.h",
        "write_pairs(even, to);",
        "write_pairs(odd, to);",
        "cpp:bfloat16",
    ),
    Bug(
        "sums of tiles that end within a block come back without their last row",
        "csrc/kernels/cpu/tile_stretch.h",
        "if (!whole) std::memcpy(part.at, sum, bytes);",
        "if (!whole) std::memcpy(part.at, sum, bytes - 128);",
        "cpp:bfloat16",
    ),
    Bug(
        "the low halves of a weight are its high ones",
        "csrc/kernels/cpu/panels.h",
        "To::put(low_twice(words), to + width);",
        "To::put(high_twice(words), to + width);",
        "cpp:bfloat16",
    ),
    Bug(
        "a panel that columns end in keeps what its memory held before",
        "csrc/kernels/cpu/panels.h",
        "const std::int64_t written = columns - column < width ? 0 : sure;",
        "const std::int64_t written = sure;",
        "cpp:packing",
    ),
    Bug(
        "a gradient that is turned is written beyond its last column",
        "csrc/kernels/cpu/packing.h",
        "write(block[i], to, rows);\n                                           }",
        "write(block[i], to);\n                                           }",
        "cpp:packing",
    ),
    Bug(
        "what overflows bfloat16 is infinity minus infinity",
        "csrc/kernels/cpu/vector_bfloat16x2.h",
        "return ((high & 0x7f800000u) == 0x7f800000u) ? high : (high | low);",
        "return high | low;",
        "cpp:bfloat16",
    ),
    Bug(
        "a step asks for memory",
        "csrc/train/backpropagation.cpp",
        "next.row_loss.reserve(batch.rows + loss_sums(batch.rows, options, options.micro_batches));",
        "next.row_loss = AlignedArray<double>(model_.device(), batch.rows);",
        "cpp:allocations",
    ),
    Bug(
        "the second tile of an unrounded result is written over the first",
        "csrc/functional/residual.cpp",
        "args.wide = rows_from(wide, begin);",
        "args.wide = rows_from(wide, 0);",
        "cpp:residual",
    ),
    Bug(
        "the last panels of a weight gradient belong to no unit",
        "csrc/functional/residual.cpp",
        "const std::int64_t units = (panels + of_a_unit - 1) / of_a_unit;",
        "const std::int64_t units = panels / of_a_unit;",
        "tests/test_ops.py -k threads",
    ),
    Bug(
        "an update rounds the gradient before the weight",
        "csrc/functional/residual.cpp",
        "return Sgd::apply(from, gradient[i * w.columns + j], unused, unused, hyper);",
        "return Sgd::apply(from, Compute<T>(to_float(to_bfloat16(float(gradient[i * w.columns + j])))), unused, unused, hyper);",
        "tests/test_ops_bfloat16.py -k update",
    ),
    Bug(
        "the argument that is taken again is rounded",
        "csrc/functional/residual.cpp",
        "    if (again) forward_rows(arguments, *again, argument, begin, end);",
        "    if (again) forward_rows(arguments, *again, argument, begin, end);\n"
        "    for (std::int64_t i = 0; again && i < rows * columns; ++i)\n"
        "        delta.data[i] = to_float(to_bfloat16(static_cast<float>(delta.data[i])));",
        "tests/test_ops_bfloat16.py -k rounded_once",
    ),
    Bug(
        "the last row of a matrix overlaps nothing",
        "csrc/capi/arguments.cpp",
        "std::min<__int128>(highest, rows - 1)",
        "std::min<__int128>(highest, rows - 2)",
        "tests/test_capi.py -k column_blocks",
    ),
    Bug(
        "what a C program says is a GPU's memory is read by the CPU",
        "csrc/capi/arguments.cpp",
        "if (where == home_->name() ||",
        "if (home_->is_host() || where == home_->name() ||",
        "tests/test_capi.py -k no_gpus_memory",
    ),
    Bug(
        "parameters are written to a C program as if its rows had no gaps",
        "csrc/capi/network.cpp",
        "rows_of<Element>(values[i]), nullptr);",
        "{rows_of<Element>(values[i]).data, values[i].columns}, nullptr);",
        "cpp:capi",
    ),
    Bug(
        "a hole between two tensors is passed over",
        "csrc/files/safetensors.cpp",
        "        if (begin != reached)",
        "        if (begin < reached)",
        "tests/test_capi.py -k hostile_files",
    ),
    Bug(
        "half a surrogate pair is a character",
        "csrc/files/json.cpp",
        "} else if (is_half(code, 0xd800) || is_half(code, 0xdc00)) {",
        "} else if (is_half(code, 0xdc00)) {",
        "tests/test_capi.py -k hostile_files",
    ),
    Bug(
        "an update that overflows is applied",
        "csrc/math/step.h",
        "return !(larger(gradient, 1)",
        "return false && !(larger(gradient, 1)",
        "tests/test_training_bad_inputs.py -k overflow",
    ),
    Bug(
        "a decay that makes weights grow is taken for safe",
        "csrc/math/step.h",
        " && lr * decay <= 1",
        "",
        "tests/test_training_bad_inputs.py -k decay",
    ),
    Bug(
        "a call while the interpreter ends gives the GIL away",
        "csrc/bindings/without_gil.h",
        "finalizing() ? nullptr : PyEval_SaveThread()",
        "PyEval_SaveThread()",
        "tests/test_process.py -k ends",
    ),
    Bug(
        "a device updates a bias although the loss is NaN",
        "csrc/train/weight_gradients.cpp",
        "    vectors.permission = permission;\n",
        "",
        "cpp:devices",
    ),
    Bug(
        "a recorded step keeps the learning rate of its first time",
        "csrc/train/staged_batch.h",
        "        numbers_.hypers = hypers;\n",
        "        if (batch.step < 2) numbers_.hypers = hypers;\n",
        "cpp:devices",
    ),
    Bug(
        "folded weights count as made before the device has made them",
        "csrc/train/model.cpp",
        "    if (has_norms) device_.synchronize();  // an error of this work",
        "    // an error of this work",
        "cpp:devices",
    ),
    Bug(
        "a step in flight is permitted after one that was not",
        "csrc/kernels/columns.h",
        "args.out->follows = args.shut && *args.shut;",
        "args.out->follows = 0;",
        "cpp:devices",
    ),
    Bug(
        "a pass with its loss does not carry running statistics on",
        "csrc/train/vjp.cpp",
        "    give_statistics(statistics);\n    if (result.finite)",
        "    if (result.finite)",
        "tests/test_torch_loss.py -k gradients",
    ),
    Bug(
        "gradients of a loss that is no number are what their memory held",
        "csrc/train/vjp.cpp",
        "if (gradients[id]) std::fill_n(gradients[id], parameters().all[id].size(), nan);",
        "",
        "tests/test_torch_loss.py -k no_number",
    ),
    Bug(
        "a pass with its loss goes backward by the matrices of the pass before",
        "csrc/train/lent_parameters.cpp",
        "if (half_ != Half::forward) store.write_backward",
        "if (half_ == Half::backward) store.write_backward",
        "tests/test_torch_loss.py -k bits",
    ),
    Bug(
        "a line is written past the caches to where it begins within another",
        "csrc/kernels/cpu/panels.h",
        "reinterpret_cast<std::uintptr_t>(p) % sizeof(__m512i) == 0",
        "reinterpret_cast<std::uintptr_t>(p) % 4 == 0",
        "cpp:packing",
    ),
    Bug(
        "a part of a lent weight's panels is laid over the first",
        "csrc/runtime/parameters.cpp",
        "    panels += first * operand_size(kernels_, inner, width);\n",
        "",
        "tests/test_torch_loss.py -k bits",
    ),
    Bug(
        "columns of a weight gradient that is taken apart are those of the first",
        "csrc/train/weight_gradients.cpp",
        "    args.delta.data += begin;\n",
        "",
        "tests/test_torch_loss.py -k bits",
    ),
    Bug(
        "what was in flight behind a careful step is not asked for again",
        "csrc/train/backpropagation.cpp",
        "for (int later = 1; later < in_flight_; ++later) launch_again(this->flight(later));",
        ";",
        "cpp:devices",
    ),
    Bug(
        "another thread's look at a network counts a step twice",
        "csrc/train/training.h",
        "steps_begun() const { return steps_begun_; }",
        "steps_begun() const { return state.steps() + pass_.in_flight(); }",
        "cpp:training",
    ),
    Bug(
        "a step that could not be asked for again counts as made",
        "csrc/train/backpropagation.cpp",
        "        flight.failure = std::current_exception();\n",
        "",
        "cpp:training",
    ),
    Bug(
        "a batch that could not begin is on its way when its owner has it back",
        "csrc/train/backpropagation.cpp",
        "        wait_for(device);\n",
        "",
        "cpp:training",
    ),
    Bug(
        "a batch is sent to where the one before it is still read",
        "csrc/train/backpropagation.cpp",
        "flights_[static_cast<std::size_t>((first_ + place) % most_in_flight)]",
        "flights_[static_cast<std::size_t>((first_ + place) * 0)]",
        "cpp:devices",
    ),
    Bug(
        "a batch is sent before the memory for it is cleared",
        "csrc/runtime/parcel.h",
        "        device_.synchronize();  // a copy",
        "        // a copy",
        "cpp:devices",
    ),
    Bug(
        "work does not wait for the batch that was sent",
        "csrc/kernels/cuda/pinned.cpp",
        "    RC_CUDA_TRY(cudaStreamWaitEvent(context.stream, context.sent, 0));\n",
        "",
        "cpp:cuda_streams",
    ),
    Bug(
        "a recording forgets that a launch before it has failed",
        "csrc/kernels/cuda/recording.cpp",
        '    if (cudaPeekAtLastError() != cudaSuccess) return refuse("begin_recording: a launch before it has failed");\n',
        "",
        "cpp:cuda_streams",
    ),
    Bug(
        "a recording is destroyed while it plays",
        "csrc/kernels/cuda/recording.cpp",
        '    report(cudaStreamSynchronize(gone->stream), "cudaStreamSynchronize");',
        "   ",
        "cpp:cuda_streams",
    ),
    Bug(
        "an update on trial stays where the device fails",
        "csrc/train/backpropagation.cpp",
        "        before.restore();\n        throw;",
        "        throw;",
        "cpp:devices",
    ),
    Bug(
        "an upload writes over pinned memory that is still to be read",
        "csrc/kernels/cuda/staging.cpp",
        "    RC_CUDA_TRY(cudaEventSynchronize(emptied_[chunk_]));",
        "    ",
        "cpp:cuda_streams",
    ),
    Bug(
        "another device's memory is released in the order of the caller's",
        "csrc/kernels/cuda/memory.cpp",
        "cudaFreeAsync(memory, owner->stream)",
        "cudaFreeAsync(memory, owner ? current_context()->stream : nullptr)",
        "cpp:cuda_streams",
    ),
    Bug(
        "a thread keeps the library's CUDA device",
        "csrc/kernels/cuda/context.cpp",
        'report(cudaSetDevice(before->device), "cudaSetDevice");',
        'report(cudaSetDevice(now), "cudaSetDevice");',
        "cpp:cuda_streams",
    ),
    Bug(
        "rows that are chosen of a device's matrix are its first",
        "csrc/train/staged_batch.h",
        "frame.input = gathered(batch, parcel_.there(chosen));",
        "frame.input = {static_cast<const C*>(batch.x_there.from), inputs_};",
        "cpp:devices",
    ),
    Bug(
        "who goes on in another stream is not told of a launch that failed",
        "csrc/kernels/cuda/memory.cpp",
        "cudaGetLastError();  // as above",
        "cudaSuccess;  // as above",
        "cpp:cuda_streams",
    ),
    Bug(
        "who leaves work to others is not told of a launch that failed",
        "csrc/runtime/stream_order.cpp",
        "    device_.check_launches();",
        "    ",
        "cpp:cuda_device",
    ),
    Bug(
        "a launch that failed is not told of",
        "csrc/kernels/cuda/memory.cpp",
        "launch = cudaGetLastError();  // of",
        "launch = cudaSuccess;  // of",
        "cpp:cuda_streams",
    ),
    Bug(
        "kernels run on after a launch that failed",
        "csrc/kernels/cuda/launch.cuh",
        "    if (cudaPeekAtLastError() != cudaSuccess) return;",
        "    ",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "a CUDA fragment's rows and words change places",
        "csrc/kernels/cuda/multiply_mma.cuh",
        "stage.a[part][row + 8 * (i % 2)][k + word + 4 * (i / 2)]",
        "stage.a[part][row + 8 * (i / 2)][k + word + 4 * (i % 2)]",
        "cpp:cuda_products",
    ),
    Bug(
        "a CUDA product of two halves is left out",
        "csrc/kernels/cuda/multiply_mma.cuh",
        "multiply_fragments(sum + 4 * block, a[1], b[0]);",
        "",
        "cpp:cuda_products",
    ),
    Bug(
        "a CUDA stage is overwritten while it is multiplied",
        "csrc/kernels/cuda/product.cuh",
        "memory.stages[stage]);\n        __syncthreads();",
        "memory.stages[stage]);",
        "cpp:cuda_products",
    ),
    Bug(
        "a CUDA tile reads rows that are not there",
        "csrc/kernels/cuda/sources.cuh",
        "return i < rows_ && k < inner_ ?",
        "return k < inner_ ?",
        "cpp:cuda_products",
    ),
    Bug(
        "a long list of CUDA skips goes to the kernel for short ones",
        "csrc/kernels/cuda/sources.cuh",
        "args.n_identity <= usual_terms)",
        "args.n_identity <= max_terms)",
        "cpp:cuda_products",
    ),
    Bug(
        "a CUDA gradient's padding takes a NaN",
        "csrc/kernels/cuda/backward_weights.cu",
        "if (!tile.has_column(Multiply<T>::position(i).column)) total[i] = 0;",
        "",
        "cpp:cuda_updates",
    ),
    Bug(
        "a CUDA transpose is written before its tile is whole",
        "csrc/kernels/cuda/update.cuh",
        "    __syncthreads();\n    for_tile([&](int column, int row)",
        "    for_tile([&](int column, int row)",
        "cpp:cuda_updates",
    ),
    Bug(
        "a CUDA bias is updated without permission",
        "csrc/kernels/cuda/finish_gradient.cuh",
        "    if (!args.gradient && !permits(args.permission)) return;\n    if (blockIdx.x < weight_blocks)",
        "    if (blockIdx.x < weight_blocks)",
        "cpp:cuda_updates",
    ),
    Bug(
        "a CUDA weight gradient is cut into longer stretches",
        "csrc/kernels/cuda/backward_weights.cu",
        "add_steps<T, false, Multiply<T>::longest_gradient>",
        "add_steps<T, false, 8 * Multiply<T>::longest_gradient>",
        "cpp:cuda_updates",
    ),
    Bug(
        "a CUDA column is summed before every lane has its share",
        "csrc/kernels/cuda/column_sums.cuh",
        "    memory[lane][column] = sum;\n    __syncthreads();",
        "    memory[lane][column] = sum;",
        "cpp:cuda_norms",
    ),
    Bug(
        "a CUDA norm's totals are made before every warp has its share",
        "csrc/kernels/cuda/column_totals.cuh",
        ".of_warps[warp] = sum.at[0];\n    __syncthreads();",
        ".of_warps[warp] = sum.at[0];",
        "cpp:cuda_norms",
    ),
    Bug(
        "a CUDA norm is applied before its coefficients are there",
        "csrc/kernels/cuda/column_totals.cuh",
        "then(add_warps(totals.numbers[own]));\n    __syncthreads();",
        "then(add_warps(totals.numbers[own]));",
        "cpp:cuda_norms",
    ),
    Bug(
        "a CUDA norm's numbers are the next lanes'",
        "csrc/kernels/cuda/column_totals.cuh",
        "given = upper ? x[k] : x[k + half], kept = upper ? x[k + half] : x[k]",
        "given = upper ? x[k + half] : x[k], kept = upper ? x[k] : x[k + half]",
        "cpp:cuda_norms",
    ),
    Bug(
        "CUDA vectors are committed without permission",
        "csrc/kernels/cuda/elements.cuh",
        "    if (!permits(operation.args.permission)) return;\n",
        "",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "a CUDA kernel takes rows off boundaries for rows on them",
        "csrc/kernels/cuda/elements.cuh",
        "    return is_on_boundary(rows.data) && is_on_boundary(rows.data + rows.stride);",
        "    return is_on_boundary(rows.data);",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "a label on a GPU that is no class has a loss",
        "csrc/kernels/columns.h",
        "is_class ? loss : std::numeric_limits<double>::quiet_NaN()",
        "is_class ? loss : 0",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "a CUDA warp's largest is that of half its lanes",
        "csrc/kernels/cuda/largest.cuh",
        "apart > 0; apart /= 2) {\n            const",
        "apart > 1; apart /= 2) {\n            const",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "a CUDA product keeps its largest result before it is rounded",
        "csrc/kernels/cuda/largest.cuh",
        "static_cast<double>(read(stored))",
        "static_cast<double>(x)",
        "cpp:cuda_products",
    ),
    Bug(
        "a CUDA product keeps the largest of its first panel",
        "csrc/kernels/cuda/sources.cuh",
        "    largest.keep(epilogue.args.largest);",
        "    if (blockIdx.y == 0) largest.keep(epilogue.args.largest);",
        "cpp:cuda_products",
    ),
    Bug(
        "a Hopper product keeps the largest of the rows that one warpgroup has",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "    largest.keep(epilogue.args.largest);",
        "    if (group() == 1) largest.keep(epilogue.args.largest);",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a CUDA block's sum of losses lacks a half",
        "csrc/kernels/cuda/block_sum.cuh",
        "apart = threads / 2; apart > 0",
        "apart = threads / 4; apart > 0",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "a CUDA loss's gradients leave before they are there",
        "csrc/kernels/cuda/block_sum.cuh",
        "        __syncthreads();\n        if (threadIdx.x < apart)",
        "        if (threadIdx.x < apart)",
        "cpp:cuda_elementwise",
    ),
    Bug(
        "micro-batches on a GPU leave their losses in one place",
        "csrc/train/backpropagation.cpp",
        "    if (whole.target.loss_sums) frame.target.loss_sums += loss_sums(whole.rows, options, index);\n",
        "",
        "cpp:cuda_magnitudes",
    ),
    Bug(
        "a step on a GPU does not ask its products for their largest",
        "csrc/runtime/step_runner.cpp",
        "if (measured) args.largest = largest(step.out);",
        "",
        "cpp:cuda_magnitudes",
    ),
    Bug(
        "threads that divide columns draw the masks of the first ones",
        "csrc/runtime/step_arguments.cpp",
        "args.first_column = columns.first;",
        "args.first_column = 0;",
        "tests/test_columns.py -k test_the_same_bits",
    ),
    Bug(
        "a copied stage is multiplied before it has arrived",
        "csrc/kernels/cuda/ampere/tile.cuh",
        "wait_for_copies<stages - 2>();",
        "wait_for_copies<stages - 1>();",
        "cpp:cuda_ampere",
    ),
    Bug(
        "a copied stage is copied over while it is multiplied",
        "csrc/kernels/cuda/ampere/tile.cuh",
        "        __syncthreads();  // the stage has arrived for all, and the one before it has been multiplied by all\n",
        "",
        "cpp:cuda_ampere",
    ),
    Bug(
        "a copied tile's sums are left where it is still multiplied",
        "csrc/kernels/cuda/ampere/tile.cuh",
        "    __syncthreads();  // what the stages had is of no more use\n",
        "",
        "cpp:cuda_ampere",
    ),
    Bug(
        "a copied source begins every stage with its first weights",
        "csrc/kernels/cuda/ampere/sum.cuh",
        "        operand_ += stage_terms * panel_width;\n",
        "",
        "cpp:cuda_ampere",
    ),
    Bug(
        "copied parts of a sum are never cut",
        "csrc/kernels/cuda/ampere/tile.cuh",
        "terms == longest || step + 1 == count",
        "step + 1 == count",
        "cpp:cuda_ampere",
    ),
    Bug(
        "a copied gradient goes on beyond the batch",
        "csrc/kernels/cuda/ampere/weights.cuh",
        "i < end_ && left > 0",
        "left > 0",
        "cpp:cuda_ampere",
    ),
    Bug(
        "a copied gradient's tile goes on beyond its last panel",
        "csrc/kernels/cuda/ampere/weights.cuh",
        "column < panels * panel_width && has_panel(column)",
        "column < panels * panel_width",
        "cpp:cuda_ampere",
    ),
    Bug(
        "a Hopper stage is filled before it is let go of",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "        wait(empty(at.stage()), at.parity() ^ 1);\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper stage waits for the wrong round",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "at.parity() ^ 1",
        "at.parity()",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper stage expects half of its bytes",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "arrive_expecting(full(at.stage()), stage_bytes)",
        "arrive_expecting(full(at.stage()), stage_bytes / 2)",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper stage is used before it is full",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "        wait(full(at.stage()), at.parity());\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper stage is let go of by the first warps",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "make(using_groups * warps_of_group)",
        "make(using_groups)",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper stage is let go of while it is multiplied",
        "csrc/kernels/cuda/hopper/tile.cuh",
        "wait_for_products<0>();",
        "wait_for_products<1>();",
        "cpp:cuda_hopper",
    ),
    Bug(
        "Hopper's products follow other uses of their sums",
        "csrc/kernels/cuda/hopper/tile.cuh",
        "        product_fence();  // after the wait, where ptxas would put one of its own\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "Hopper's parts of a sum are never cut",
        "csrc/kernels/cuda/hopper/tile.cuh",
        "step > 0 || k > 0",
        "first > 0 || step > 0 || k > 0",
        "cpp:cuda_hopper",
    ),
    Bug(
        "Hopper's rows are finished before the warp has left them",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "[&] { left.begin_emptying(turn); }",
        "[] {}",
        "cpp:cuda_hopper",
    ),
    Bug(
        "Hopper's usual rows are finished before the warp has left them",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "        left.begin_emptying(turn);\n#pragma unroll",
        "#pragma unroll",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper strip writes rows that are not there",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "if (!strip.has(v)) continue;",
        "if (!strip.has_any()) continue;",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper strip's slopes are those of four rows before",
        "csrc/kernels/cuda/backward_data.cu",
        "            return passes[v * hopper::Strip::width / 32]",
        "            return passes[0]",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper product that is launched ahead does not wait for the kernel before it",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "    begin_ahead();\n    __syncthreads();",
        "    __syncthreads();",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper warp hands sums over before all its lanes are done",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "        arrive(barrier);\n        __syncwarp();",
        "        if (threadIdx.x % 32 < 16) arrive(barrier), arrive(barrier);\n        __syncwarp();",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper tile's sums are handed over by the first warp",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "barrier_init(full_, 32 * filling_warps);",
        "barrier_init(full_, 32);",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper tile's room is given back by the first warp",
        "csrc/kernels/cuda/hopper/ring.cuh",
        "barrier_init(empty_, 32 * emptying_warps);",
        "barrier_init(empty_, 1);",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper tile's room is not given back",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "        left.end_emptying(turn);\n    }\n    keep_largest_of_pair(",
        "    }\n    keep_largest_of_pair(",
        "cpp:cuda_hopper",
    ),
    Bug(
        "Hopper's next tile is left over the last one",
        "csrc/kernels/cuda/hopper/sum.cuh",
        "        left.begin_filling(turn);\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile's skip is not waited for",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "        wait(shared.skip_is_there(half), turn.parity());\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile's results leave before copies may see them",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "        fence_stores();\n        arrive(",
        "        arrive(",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile's next skip comes over results that have not left",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "        wait_until_boxes_are_read();\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "what a broad tile's epilogue reads is prepared over that of the tile before",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "[&] { prepared.begin_filling(turn); }",
        "[] {}",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile's epilogue reads what is not prepared yet",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "        shared.handover().begin_emptying(turn);\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile keeps the largest of rows that are not there",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "epilogue.args.rows ? 0x7fff7fff : 0;",
        "epilogue.args.rows ? 0x7fff7fff : 0x7fff7fff;",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile has a zero of the matrix units' own sign",
        "csrc/kernels/cuda/backward_data.cu",
        "        each(g, Plus(), hopper::Pair{});  // sums begin from +0\n",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a broad tile's sums are never cut",
        "csrc/kernels/cuda/hopper/broad_sum.cuh",
        "steps * stage_terms > terms_in_part || ",
        "",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper gradient's rows are read before the warp has left them",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "        leave_rows(total, shared.left);\n        __syncwarp();\n",
        "        leave_rows(total, shared.left);\n",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper stage is filled again while its columns are summed",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "make(using_groups * warps_of_group + (has_bias ? summing_warps : 0))",
        "make(using_groups * warps_of_group)",
        "cpp:cuda_updates",
    ),
    Bug(
        "Hopper's columns are summed beyond the batch's part",
        "csrc/kernels/cuda/hopper/column_summer.cuh",
        "const std::int64_t end = parts.last_row(part);",
        "const std::int64_t end = parts.rows;",
        "cpp:cuda_updates",
    ),
    Bug(
        "Hopper's tiles down a weight all sum the first one's share of the columns",
        "csrc/kernels/cuda/hopper/column_summer.cuh",
        "parts.first_row(part, own)",
        "parts.first_row(part)",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a CUDA bias lacks all shares but the first",
        "csrc/kernels/cuda/finish_gradient.cuh",
        "parts.count * parts.bias_shares, lane",
        "parts.count, lane",
        "cpp:cuda_updates",
    ),
    Bug(
        "a divided gradient's padding takes a NaN",
        "csrc/kernels/cuda/finish_gradient.cuh",
        "if (panel * panel_width + column + c >= args.columns) x.at[c] = 0;",
        "",
        "cpp:cuda_updates",
    ),
    Bug(
        "a divided gradient lacks its last part",
        "csrc/kernels/cuda/finish_gradient.cuh",
        "const int end = count * (lane + 1) / lanes;",
        "const int end = count * (lane + 1) / lanes - (lane + 1 == lanes && count > 2);",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper descriptor goes too slowly along the terms",
        "csrc/kernels/cuda/hopper/descriptor.cuh",
        "* product_depth * 2);",
        "* product_depth);",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper descriptor finds the next panel too early",
        "csrc/kernels/cuda/hopper/source_stages.cuh",
        "product, box_bytes);",
        "product, box_bytes / 2);",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper stage has the terms of the first",
        "csrc/kernels/cuda/hopper/source_stages.cuh",
        "maps.rows[source], step * stage_terms, row",
        "maps.rows[source], 0, row",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper epilogue writes beyond its row",
        "csrc/kernels/cuda/hopper/strip.cuh",
        "j_ <= columns - width",
        "j_ < columns",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper epilogue takes rows to begin on boundaries",
        "csrc/kernels/cuda/elements.cuh",
        "is_on_boundary(rows.data) && is_on_boundary(rows.data + rows.stride)",
        "is_on_boundary(rows.data)",
        "cpp:cuda_hopper",
    ),
    Bug(
        "a Hopper gradient's padding takes a NaN",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "x.at[c] = 0;",
        "x.at[c] += 0;",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper transpose is written before its tile is whole",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "        meet_group(meeting);\n        write_transposed",
        "        write_transposed",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper transpose is read while the next tile comes",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "        meet_group(meeting);  // before the next tile's\n",
        "",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper update touches another call's panel",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "row(at) < args.inner && panel(column) < args.last_panel",
        "row(at) < args.inner && panel(column) * panel_width < args.columns",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper gradient forgets what it is added to",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "if (args.gradient && args.accumulate && !parts.is_divided()) take_gradient(tile, total);",
        "",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper weight is updated without permission",
        "csrc/kernels/cuda/hopper/weights.cuh",
        "    if (!weights.calls[0].gradient && !permits(weights.calls[0].permission)) return;\n",
        "",
        "cpp:cuda_updates",
    ),
    Bug(
        "Hopper's tiles of one weight are taken for another's",
        "csrc/kernels/cuda/hopper/weight_tiles.cuh",
        "            at_ -= all;\n",
        "            at_ = 0;\n",
        "cpp:cuda_updates",
    ),
    Bug(
        "parts of several weights lie in one place",
        "csrc/kernels/cuda/gradient_parts.cuh",
        "        room += best * parts.part_size();\n",
        "",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper bias' warp lets a copy overwrite what it read without a fence",
        "csrc/kernels/cuda/hopper/column_summer.cuh",
        "        fence_loads();\n        end_box();",
        "        end_box();",
        "cpp:cuda_updates",
    ),
    Bug(
        "a Hopper chain multiplies what was not fenced",
        "csrc/kernels/cuda/hopper/chain_epilogue.cuh",
        "        fence_stores();\n        if constexpr (fused)\n            if (op_.passes &&",
        "        if constexpr (fused)\n            if (op_.passes &&",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain multiplies before its warpgroup has met",
        "csrc/kernels/cuda/hopper/chain.cuh",
        "            meet_groups(1 + row_group, program.column_groups());\n",
        "",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's warpgroups have the same rows",
        "csrc/kernels/cuda/hopper/chain.cuh",
        "(t) * program.tile_rows() + row_group * group_rows",
        "(t) * program.tile_rows()",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain looks for weights that stay in the next stages",
        "csrc/kernels/cuda/hopper/chain.cuh",
        "        if (program.resident) place = Place();\n",
        "",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain writes rows that are not there",
        "csrc/kernels/cuda/hopper/chain_rows.cuh",
        "if (row(i) < rows_) write_words",
        "write_words",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain loads rows without the swizzle",
        "csrc/kernels/cuda/hopper/chain_rows.cuh",
        "(eighth ^ row) & 7",
        "eighth & 7",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's registers come back in another order",
        "csrc/kernels/cuda/hopper/chain_epilogue.cuh",
        "sums[count - part + i] = now[i];",
        "sums[i] = now[i];",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain reads its skips while they are written over",
        "csrc/kernels/cuda/hopper/chain_epilogue.cuh",
        "        __syncwarp();  // an output may lie where the warp has just read a skip\n",
        "",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's rows go on in the first ones' pattern",
        "csrc/kernels/cuda/hopper/chain_rows.cuh",
        "i % 2 != 0 ? 4 * 16 : 0",
        "0",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain reads what was saved before it is there",
        "csrc/kernels/cuda/hopper/chain_epilogue.cuh",
        "        store_ahead();\n        __syncwarp();\n",
        "        store_ahead();\n",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's warpgroups wait for those of their own columns alone",
        "csrc/kernels/cuda/hopper/chain.cuh",
        "meet_groups(1 + row_group, program.column_groups())",
        "meet_groups(group(), 1)",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's warpgroups that share rows share stages",
        "csrc/kernels/cuda/hopper/chain_program.cuh",
        "{stages + before * box_bytes, barriers",
        "{stages, barriers",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain puts an output over its own source",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "            if (find(link.sources[s].rows.data) == slot) return false;\n",
        "            if (find(link.sources[s].rows.data) == slot) continue;\n",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain puts an output over what a later step needs",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "slots_[slot].last > number)",
        "slots_[slot].last > number + 1)",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain goes over memory of another block's rows",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "                if (one.written || written) return false;\n",
        "",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's last reader is one of its own",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "last_reader >= n_",
        "last_reader > n_",
        "cpp:cuda_chain",
    ),
    Bug(
        "a Hopper chain's norm does not wait for other blocks' sums",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "        if (own == 0) meet_blocks(norms_.meeting);\n",
        "",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain's norms have one room for their blocks' sums",
        "csrc/kernels/cuda/hopper/chain_program.cuh",
        "norm % 2 * 2 * chain_width",
        "0 * norm * 2 * chain_width",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain's norm reads warps' sums before they are there",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "        meet();\n        const int own",
        "        const int own",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain's norm has rows that are not there",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "+ 4 * i < rows_of_warp();",
        "+ 4 * i < warp_rows;",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain's norm has every warp for one of 16 rows",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "return left < warp_rows ? left : warp_rows;\n    }\n};",
        "return warp_rows + 0 * left;\n    }\n};",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain multiplies what a norm has not fenced",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "        rows.store(tile_.box(op_.first_box + panel), z);\n        fence_stores();\n",
        "        rows.store(tile_.box(op_.first_box + panel), z);\n",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain's block meets others before its own threads have left their sums",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "        meet();\n        if (own == 0) meet_blocks(norms_.meeting);",
        "        if (own == 0) meet_blocks(norms_.meeting);",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "norms of one chain have their coefficients in different places",
        "csrc/kernels/cuda/hopper/chain_norm.cuh",
        "return program().norm_width; }",
        "return static_cast<std::uint32_t>((op_.columns + box_width - 1) / box_width * box_width); }",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain keeps slopes of rows that have no room",
        "csrc/kernels/cuda/hopper/chain_epilogue.cuh",
        "op_.kind == ChainOperation::Kind::forward && tile_.has(0))",
        "op_.kind == ChainOperation::Kind::forward)",
        "cpp:cuda_passes",
    ),
    Bug(
        "slopes in bits are read that are not there",
        "csrc/kernels/cuda/backward_data.cu",
        "!args.passes->there || ",
        "",
        "cpp:cuda_passes",
    ),
    Bug(
        "a broad tile's slopes in bits are those of eight rows before",
        "csrc/kernels/cuda/backward_data.cu",
        "2 * chunk + of_row.down",
        "2 * chunk",
        "cpp:cuda_passes",
    ),
    Bug(
        "bits of what went through GELU are taken for ReLU's",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "step.forward.passes && is_activation<Relu>(step.forward.activation)",
        "step.forward.passes",
        "cpp:cuda_passes",
    ),
    Bug(
        "blocks that have several tiles meet at norms",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "|| !may_meet_ ",
        "",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "a Hopper chain writes over what a norm of a later step needs",
        "csrc/kernels/cuda/hopper/chain_planner.cuh",
        "return link.normed.data == data || is_identity(link, data);",
        "return is_identity(link, data);",
        "cpp:cuda_fused_chain",
    ),
    Bug(
        "column sums of a device's large batch are not combined",
        "csrc/runtime/executor.cpp",
        "            if (sums) finish(team, step, partial, frame.continues);\n",
        "",
        "cpp:devices",
    ),
    Bug(
        "Hopper's path is taken where it is not named",
        "csrc/kernels/cuda/path.cpp",
        "path = Path::simple;",
        "path = Path::hopper;",
        "cpp:cuda_hopper",
    ),
)
INCLUDES = {"csrc/runtime/tiles.h": '#include "runtime/thread_pool.h"\n'}


class Copy:
    """The sources, a build of them, and a package that can be imported from them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.build = folder / "source", folder / "build"
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in names.splitlines():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.source / name)
        import pybind11

        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "RESNETCORE_KERNEL_OPTIMIZATION": "-O1",  # wrong at any level, and quicker to compile
            "RESNETCORE_UNITY_BUILD": "OFF",  # one file changes at a time
            "RESNETCORE_BUILD_TESTS": "ON",
            "RESNETCORE_CUDA": "OFF",
            "RESNETCORE_CUDA_EMULATION": "ON",
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "Python_EXECUTABLE": sys.executable,
        }
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        run(["cmake", "-S", self.source, "-B", self.build, *definitions])
        self.python = self._environment(folder / "environment")

    @staticmethod
    def _environment(folder: Path) -> Path:
        """A Python that sees everything installed here but an editable resnetcore, whose hook a .pth would run."""
        venv.create(folder, with_pip=False)
        installed = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        (installed / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return folder / "bin" / "python"

    def compile(self, test: str) -> None:
        """What the test runs, and no more: most bugs lie in headers, and every program includes them."""
        targets = [f"test_{test[4:]}"] if test.startswith("cpp:") else ["_core", "resnetcore"]
        run(["cmake", "--build", self.build, "-j", str(len(os.sched_getaffinity(0))), "--target", *targets])
        if not test.startswith("cpp:"):
            self._install()

    def _install(self) -> None:
        run(["cmake", "--install", self.build, "--prefix", self.source / "python"])
        where = subprocess.run(
            [self.python, "-c", "import resnetcore._core as c; print(c.__file__)"],
            env=self.variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if not Path(where.strip()).is_relative_to(self.source):
            raise SystemExit(f"the tests would import {where}")

    @property
    def variables(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.source / "python")}

    def passes(self, test: str) -> bool:
        if test.startswith("cpp:"):
            command = [self.build / "tests" / "cpp" / f"test_{test[4:]}"]
        else:
            command = [self.python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(test)]
        self.last = subprocess.run(command, cwd=self.source, env=self.variables, capture_output=True, text=True)
        if self.last.returncode > 1:
            raise SystemExit(f"{test}: did not run\n{self.last.stdout[-2000:]}{self.last.stderr[-2000:]}")
        return self.last.returncode == 0


def run(command: list) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(result.stdout[-4000:] + result.stderr[-4000:])


def plant(copy: Copy, bug: Bug) -> bool:
    """Whether the test caught it."""
    file = copy.source / bug.file
    healthy = file.read_text()
    sick = healthy.replace(bug.before, bug.after)
    if bug.file in INCLUDES:
        sick = sick.replace("#pragma once\n", "#pragma once\n" + INCLUDES[bug.file])
    file.write_text(sick)
    try:
        copy.compile(bug.test)
        return not copy.passes(bug.test)
    finally:
        file.write_text(healthy)


def stale() -> list[str]:
    """Bugs whose place in the sources is not there any more, or not the only one."""
    return [bug.name for bug in BUGS if (ROOT / bug.file).read_text().count(bug.before) != 1]


def main(names: list[str]) -> int:
    if stale():
        raise SystemExit(f"cannot be planted: {', '.join(stale())}")
    bugs = [bug for bug in BUGS if not names or bug.name in names]
    escaped = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        for test in sorted({bug.test for bug in bugs}):
            copy.compile(test)
            if not copy.passes(test):
                raise SystemExit(f"{test} fails without any bug\n{copy.last.stdout[-3000:]}{copy.last.stderr[-3000:]}")
        for bug in bugs:
            caught = plant(copy, bug)
            print(f"{'caught ' if caught else 'ESCAPED'}  {bug.name}: {bug.test}", flush=True)
            if not caught:
                escaped.append(bug.name)
    print(f"{len(bugs) - len(escaped)} of {len(bugs)} caught")
    return 1 if escaped else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
