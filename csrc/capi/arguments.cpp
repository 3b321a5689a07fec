#include "capi/arguments.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/text.h"
#include "capi/devices.h"
#include "capi/guarded.h"
#include "runtime/cuda_module.h"

namespace resnetcore::capi {
namespace {

constexpr const char* dtype_names[] = {"float32", "float64", "bfloat16", "int64"};
constexpr std::int64_t item_sizes[] = {4, 8, 2, 8};
// So that sums of offsets stay far from overflow.
constexpr std::int64_t most_bytes = std::int64_t{1} << 60;

bool known(rc_dtype dtype) { return dtype >= RC_FLOAT32 && dtype <= RC_INT64; }

std::string dtype_text(rc_dtype dtype) {
    return known(dtype) ? dtype_names[dtype] : "the unknown dtype " + std::to_string(dtype);
}

// From the first to the last byte of the matrix, or of a dense copy where that has more; more than `most_bytes` where
// it is too much.
std::int64_t extent(const rc_matrix& m) {
    if (m.rows == 0) return 0;
    std::int64_t elements = 0;
    const bool fits = m.stride != INT64_MIN &&
                      !__builtin_mul_overflow(m.rows - 1, std::max(std::abs(m.stride), m.columns), &elements) &&
                      !__builtin_add_overflow(elements, m.columns, &elements) &&
                      !__builtin_mul_overflow(elements, item_sizes[m.dtype], &elements);
    return fits ? elements : INT64_MAX;
}

}  // namespace

void Arguments::check(const rc_matrix* matrix, const std::string& name, std::int64_t rows, std::int64_t columns,
                      rc_dtype dtype, Use use, rc_dtype also) {
    require(matrix, operation_, name.c_str());
    const rc_matrix& m = *matrix;
    const std::string what = std::string(operation_) + ": " + name;
    if (m.dtype != dtype && (also == -1 || m.dtype != also))
        throw DTypeError(what + " must be " + dtype_text(dtype) + (also == -1 ? "" : " or " + dtype_text(also)) +
                         ", got " + dtype_text(m.dtype));
    if (m.rows != rows || m.columns != columns)
        throw ShapeError(what + " must be " + shape_text({rows, columns}) + ", got " + shape_text({m.rows, m.columns}));
    if (extent(m) > most_bytes)
        throw ShapeError(what + " must take less than 2**60 bytes, got " + shape_text({rows, columns}) +
                         " and a stride of " + std::to_string(m.stride));
    if (use == Use::written && rows > 1 && m.stride < columns)
        throw ShapeError(what + " is written and must have a stride of at least " + std::to_string(columns) + ", got " +
                         std::to_string(m.stride));
    check_place(m, name);
    if (rows == 0) return;
    require(m.data, operation_, (name + ".data").c_str());
    const std::int64_t item = item_sizes[m.dtype];
    if (reinterpret_cast<std::uintptr_t>(m.data) % static_cast<std::uintptr_t>(item) != 0)
        throw ShapeError(what + ".data must lie at a multiple of " + std::to_string(item) + " bytes");
    check_memory(m, name);
    const std::int64_t stride = rows > 1 ? m.stride * item : 0;
    const char* first = static_cast<const char*>(m.data) + (stride < 0 ? (rows - 1) * stride : 0);
    regions_.push_back({name, use, first, stride == 0 ? 1 : rows, columns * item, std::abs(stride)});
}

void Arguments::check_place(const rc_matrix& m, const std::string& name) {
    const std::string where = device_text(m.device, operation_, name);
    if (m.device != RC_CPU) any_on_gpu_ = true;
    if (where == home_->name() || (m.device == RC_CPU && host_too_)) return;
    throw DeviceError(std::string(operation_) + ": " + name + " is on " + where + ", and the work is done on " +
                      home_->name() + "; copy it there");
}

// A kernel that reads what is not its GPU's ends the process's work there. Where no GPU is at work none is asked.
void Arguments::check_memory(const rc_matrix& m, const std::string& name) const {
    if (home_->is_host()) return;
    const int owner = cuda_module().device_of(m.data);  // whose device may be none that this process works on
    const std::string is = owner < 0 ? host_device().name() : "cuda:" + std::to_string(owner);
    const std::string said = device_text(m.device, operation_, name);
    if (is != said)
        throw DeviceError(std::string(operation_) + ": " + name + ".data is memory of " + is + ", and " + name +
                          ".device says " + said);
}

// Whether `bytes` from `begin` on touch one of `rows` rows, of the length and stride of `of`, from `first` on.
bool Arguments::hits(__int128 begin, std::int64_t bytes, __int128 first, std::int64_t rows, const Region& of) {
    if (rows == 1) return begin < first + of.row_bytes && first < begin + bytes;
    const __int128 stride = of.stride_bytes;
    const auto floor = [&](__int128 x) { return x >= 0 ? x / stride : -((stride - 1 - x) / stride); };
    const __int128 lowest = floor(begin - of.row_bytes - first) + 1, highest = floor(begin + bytes - 1 - first);
    return std::max<__int128>(lowest, 0) <= std::min<__int128>(highest, rows - 1);
}

bool Arguments::overlap(const Region& a, const Region& b) {
    if (a.rows > b.rows) return overlap(b, a);
    const auto address = [](const Region& r) {
        return static_cast<__int128>(reinterpret_cast<std::uintptr_t>(r.first));
    };
    const auto end = [&](const Region& r) {
        return address(r) + static_cast<__int128>(r.rows - 1) * r.stride_bytes + r.row_bytes;
    };
    if (end(a) <= address(b) || end(b) <= address(a)) return false;
    // Column blocks of one matrix: row i of `a` is to row j of `b` as row 0 is to row j − i.
    if (a.stride_bytes == b.stride_bytes)
        return hits(address(a), a.row_bytes, address(b) - static_cast<__int128>(a.rows - 1) * b.stride_bytes,
                    a.rows + b.rows - 1, b);
    for (std::int64_t i = 0; i < a.rows; ++i)
        if (hits(address(a) + static_cast<__int128>(i) * a.stride_bytes, a.row_bytes, address(b), b.rows, b))
            return true;
    return false;
}

void Arguments::check_overlaps() const {
    for (std::size_t i = 0; i < regions_.size(); ++i)
        for (std::size_t j = 0; j < regions_.size(); ++j) {
            const Region &a = regions_[i], &b = regions_[j];
            if (i != j && a.use == Use::written && overlap(a, b))
                throw ValueError(std::string(operation_) + ": " + a.name + " must not overlap " + b.name);
        }
}

}  // namespace resnetcore::capi
