// The structures of DLPack's C interface (https://dmlc.github.io/dlpack), versions 0 and 1.
#pragma once

#include <cstdint>

namespace resnetcore::dlpack {

enum DeviceKind : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, rocm_host = 11, cuda_managed = 13 };
enum TypeCode : std::uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4, boolean = 6 };

struct Tensor {
    void* data;
    std::int32_t device_kind, device_index;
    std::int32_t ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: C order
    std::uint64_t byte_offset;
};

struct Managed {
    Tensor tensor;
    void* context;
    void (*deleter)(Managed*);
};

struct VersionedManaged {
    std::uint32_t major, minor;
    void* context;
    void (*deleter)(VersionedManaged*);
    std::uint64_t flags;
    Tensor tensor;
};

// What a type's `__dlpack_c_exchange_api__` is a capsule of.
struct ExchangeApi {
    std::uint32_t major, minor;
    const ExchangeApi* older;  // of the major version before, or null
    void* allocate;
    void* managed_from_object;
    void* managed_to_object;
    int (*tensor_from_object)(void* object, Tensor* tensor);  // 0, or −1 with Python's error set; may be null
    void* current_stream;
};

constexpr std::uint32_t known_major = 1;
constexpr std::uint64_t read_only_flag = 1, copied_flag = 2;

}  // namespace resnetcore::dlpack
