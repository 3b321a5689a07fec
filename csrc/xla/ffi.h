// What XLA's foreign function interface (FFI) passes to a handler: as much of its C structs as the handlers here read.
//
// XLA keeps this layout within a major version and adds fields at the end only, so nothing of XLA's is needed to build,
// and one build serves every version of JAX that speaks it. `size` is what a struct's maker has of it.
// tests/test_jax_ffi.py holds all of it against the header that comes with the installed JAX.
#pragma once

#include <cstddef>
#include <cstdint>

namespace resnetcore::xla {

// The versions that were looked at: 0.1 (JAX 0.5) to 0.3 (JAX 0.10).
constexpr int major_version = 0, first_minor_version = 1, last_minor_version = 3;

enum Kind : std::int32_t { buffer_kind = 1, scalar_kind = 3, string_kind = 4 };
enum DataType : std::int32_t {
    int64_type = 5,
    uint8_type = 6,
    uint32_type = 8,
    float32_type = 11,
    float64_type = 12,
    bfloat16_type = 16
};
enum ErrorCode : std::int32_t { invalid_argument = 3, resource_exhausted = 8 };

struct Status;  // XLA's own error; null where there is none

struct Extension {
    std::size_t size;
    std::int32_t type;
    Extension* next;
};
constexpr std::int32_t metadata_extension = 1;

struct Version {
    std::size_t size;
    Extension* extensions;
    int major, minor;
};

struct ErrorArguments {
    std::size_t size;
    Extension* extensions;
    const char* message;
    std::int32_t code;
};

struct Api {
    std::size_t size;
    Extension* extensions;
    Version version;
    const void* internal;
    Status* (*create_error)(ErrorArguments*);
};

struct Buffer {
    std::size_t size;
    Extension* extensions;
    std::int32_t type;
    void* data;
    std::int64_t rank;
    std::int64_t* shape;
};

// Arguments, and results likewise.
struct Values {
    std::size_t size;
    Extension* extensions;
    std::int64_t count;
    std::int32_t* kinds;
    void** values;
};

struct Text {
    const char* data;
    std::size_t size;
};

struct Scalar {
    std::int32_t type;
    void* value;
};

struct Attributes {
    std::size_t size;
    Extension* extensions;
    std::int64_t count;
    std::int32_t* kinds;
    Text** names;
    void** values;
};

struct CallFrame {
    std::size_t size;
    Extension* extensions;
    const Api* api;
    void* context;
    std::int32_t stage;
    Values arguments, results;
    Attributes attributes;
};

// A call with this extension asks what the handler is, and wants nothing done.
struct Metadata {
    std::size_t size;
    Version version;
    std::uint32_t traits;
};

struct MetadataExtension {
    Extension base;
    Metadata* metadata;
};

using Handler = Status* (*)(CallFrame*);

}  // namespace resnetcore::xla
