// The matrices of one call: each is checked before any is used, and what is written is nobody else's memory.
#pragma once

#include <string>
#include <vector>

#include "capi/resnetcore.h"
#include "kernels/ops.h"

namespace resnetcore::capi {

template <class T>
constexpr rc_dtype dtype_of = RC_FLOAT32;
template <>
inline constexpr rc_dtype dtype_of<double> = RC_FLOAT64;
template <>
inline constexpr rc_dtype dtype_of<bfloat16> = RC_BFLOAT16;
template <>
inline constexpr rc_dtype dtype_of<std::int64_t> = RC_INT64;

enum class Use { read, written };

class Arguments {
public:
    explicit Arguments(const char* operation) : operation_(operation) {}

    // Throws ValueError, DTypeError or ShapeError, naming the operation and the argument. `also` is another dtype that
    // is taken.
    void check(const rc_matrix* matrix, const std::string& name, std::int64_t rows, std::int64_t columns,
               rc_dtype dtype, Use use, rc_dtype also = -1);
    // After all of them: throws ValueError where what is written overlaps another one.
    void check_overlaps() const;

private:
    struct Region {
        std::string name;
        Use use;
        const char* first;  // the row at the lowest address
        std::int64_t rows, row_bytes, stride_bytes;
    };

    static bool overlap(const Region& a, const Region& b);
    static bool hits(__int128 begin, std::int64_t bytes, __int128 first, std::int64_t rows, const Region& of);

    const char* operation_;
    std::vector<Region> regions_;
};

// Of a checked matrix.
template <class T>
MutableRows<T> rows_of(const rc_matrix& m) {
    // Whatever the caller's stride is, a single row has no next one.
    return {static_cast<T*>(m.data), m.rows > 1 ? m.stride : m.columns};
}

// Of a checked column, (rows, 1).
template <class T>
std::vector<T> column_of(const rc_matrix& m) {
    std::vector<T> values(static_cast<std::size_t>(m.rows));
    const Rows<T> rows = rows_of<T>(m);
    for (std::int64_t i = 0; i < m.rows; ++i) values[i] = rows.data[i * rows.stride];
    return values;
}

}  // namespace resnetcore::capi
