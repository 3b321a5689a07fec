// The matrices of one call: each is checked before any is used, what is written is nobody else's memory, and all are
// where the call's work is done, or where it may get them.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "capi/resnetcore.h"
#include "kernels/ops.h"
#include "runtime/device.h"
#include "runtime/staged.h"

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
    // The work is done on `home`, and what is on the CPU can be copied there if it takes the `host_too`.
    explicit Arguments(const char* operation, Device& home = host_device(), bool host_too = false)
        : operation_(operation), home_(&home), host_too_(host_too) {}

    // Throws ValueError, DTypeError, ShapeError or DeviceError, naming the operation and the argument. `also` is
    // another dtype that is taken.
    void check(const rc_matrix* matrix, const std::string& name, std::int64_t rows, std::int64_t columns,
               rc_dtype dtype, Use use, rc_dtype also = -1);
    // After all of them: throws ValueError where what is written overlaps another one.
    void check_overlaps() const;
    const char* operation() const { return operation_; }
    Device& home() const { return *home_; }
    // Whether some are in a GPU's memory.
    bool any_on_gpu() const { return any_on_gpu_; }

private:
    struct Region {
        std::string name;
        Use use;
        const char* first;  // the row at the lowest address
        std::int64_t rows, row_bytes, stride_bytes;
    };

    void check_place(const rc_matrix& m, const std::string& name);
    void check_memory(const rc_matrix& m, const std::string& name) const;
    static bool overlap(const Region& a, const Region& b);
    static bool hits(__int128 begin, std::int64_t bytes, __int128 first, std::int64_t rows, const Region& of);

    const char* operation_;
    Device* home_;
    bool host_too_, any_on_gpu_ = false;
    std::vector<Region> regions_;
};

// Of a checked matrix.
inline Memory memory_of(const rc_matrix& m) { return m.device == RC_CPU ? Memory::host : Memory::device; }
template <class T>
MutableRows<T> rows_of(const rc_matrix& m) {
    // Whatever the caller's stride is, a single row has no next one.
    return {static_cast<T*>(m.data), m.rows > 1 ? m.stride : m.columns};
}

// A checked matrix where the CPU reads it: in place, or a copy with the gaps between its rows, which is there at once.
// Its device is the calling thread's.
template <class T>
class HostRows {
public:
    HostRows(const rc_matrix& m, Device& device) : rows_(rows_of<T>(m)) {
        if (memory_of(m) == Memory::host || m.rows == 0) return;
        const std::int64_t reach = (m.rows - 1) * rows_.stride, before = reach < 0 ? -reach : 0;
        copy_.resize(static_cast<std::size_t>(std::abs(reach) + m.columns));
        device.download(copy_.data(), rows_.data - before, copy_.size() * sizeof(T));
        rows_.data = copy_.data() + before;
    }
    HostRows(const HostRows&) = delete;
    Rows<T> get() const { return rows_; }

private:
    Rows<T> rows_;
    std::vector<T> copy_;
};

// Of a checked column, (rows, 1).
template <class T>
std::vector<T> column_of(const rc_matrix& m, Device& device) {
    std::vector<T> values(static_cast<std::size_t>(m.rows));
    const HostRows<T> column(m, device);
    const Rows<T> rows = column.get();
    for (std::int64_t i = 0; i < m.rows; ++i) values[i] = rows.data[i * rows.stride];
    return values;
}

}  // namespace resnetcore::capi
