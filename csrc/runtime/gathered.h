// Strided matrices of known elements, made dense by a device that gathers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "runtime/device.h"

namespace resnetcore {

template <class T>
constexpr GatherArgs::Type gathered_type = std::is_same_v<T, double>  ? GatherArgs::f64
                                           : std::is_same_v<T, float> ? GatherArgs::f32
                                                                      : GatherArgs::bf16;

// to (rows, columns) = the matrix whose element (i, j) is from[i * row_stride + j * column_stride].
template <class From, class To>
void gather_strided(Device& device, std::int64_t rows, std::int64_t columns, const From* from, std::int64_t row_stride,
                    std::int64_t column_stride, To* to) {
    static_assert(std::is_same_v<To, float> || std::is_same_v<To, double>);
    GatherArgs args;
    args.rows = rows;
    args.columns = columns;
    args.from = from;
    args.from_type = gathered_type<From>;
    args.row_stride = row_stride;
    args.column_stride = column_stride;
    args.to = to;
    args.to_type = gathered_type<To>;
    device.gather(args);
}

}  // namespace resnetcore
