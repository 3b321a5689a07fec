#include "xla/call.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>

namespace resnetcore::xla {
namespace {

template <class Struct>
bool holds(const Struct& given) {
    return given.size >= sizeof(Struct);
}

Status* error(const CallFrame& frame, const std::string& message, ErrorCode code) {
    ErrorArguments arguments{sizeof(ErrorArguments), nullptr, message.c_str(), code};
    return frame.api->create_error(&arguments);
}

// XLA takes handlers of its own version and of some before it. The first XLAs did not say which they are, and took
// their own only.
void describe(const CallFrame& frame, Metadata& metadata) {
    const bool known = frame.api && holds(*frame.api);
    metadata.version.size = sizeof(Version);
    metadata.version.extensions = nullptr;
    metadata.version.major = major_version;
    metadata.version.minor =
        known ? std::clamp(frame.api->version.minor, first_minor_version, last_minor_version) : first_minor_version;
    metadata.traits = 0;
}

// Null where there is none of that name and kind.
const void* find_attribute(const CallFrame& frame, const char* name, Kind kind) {
    const Attributes& all = frame.attributes;
    for (std::int64_t i = 0; i < all.count; ++i)
        if (std::string_view(all.names[i]->data, all.names[i]->size) == name && all.kinds[i] == kind)
            return all.values[i];
    return nullptr;
}

const void* attribute(const CallFrame& frame, const char* name, Kind kind) {
    if (const void* found = find_attribute(frame, name, kind)) return found;
    throw ValueError(std::string("there is no attribute ") + name + ", or it is of another type");
}

}  // namespace

const Buffer& Buffers::at(std::int64_t index) const {
    if (index >= values_.count || values_.kinds[index] != buffer_kind)
        throw ShapeError(name(index) + " is missing, or no array");
    const Buffer& buffer = *static_cast<const Buffer*>(values_.values[index]);
    if (!holds(buffer)) throw BuildFeatureError("this XLA's buffers are of another layout");
    return buffer;
}

const Buffer& Buffers::checked(DataType type, const std::vector<std::int64_t>& shape) {
    const Buffer& buffer = at(next_);
    if (buffer.type != type) throw DTypeError(name(next_) + " is of another dtype than it must be");
    if (shape_of(buffer) != shape) throw ShapeError(name(next_) + " is of another shape than it must be");
    ++next_;
    return buffer;
}

void Buffers::end() const {
    if (left() != 0) throw ShapeError(name(next_) + " is one too many");
}

std::int64_t integer_attribute(const CallFrame& frame, const char* name) {
    const Scalar& scalar = *static_cast<const Scalar*>(attribute(frame, name, scalar_kind));
    if (scalar.type != int64_type) throw ValueError(std::string("attribute ") + name + " must be an int64");
    std::int64_t value;
    std::memcpy(&value, scalar.value, sizeof value);
    return value;
}

std::int64_t integer_attribute(const CallFrame& frame, const char* name, std::int64_t otherwise) {
    return find_attribute(frame, name, scalar_kind) ? integer_attribute(frame, name) : otherwise;
}

std::string text_attribute(const CallFrame& frame, const char* name) {
    const Text& text = *static_cast<const Text*>(attribute(frame, name, string_kind));
    return {text.data, text.size};
}

Status* answer(CallFrame* frame, const char* operation, void (*body)(const CallFrame&)) {
    // Registration asks first: an XLA whose frames cannot be read here gets no version, and so does not register.
    if (!holds(*frame)) return nullptr;
    if (frame->extensions && frame->extensions->type == metadata_extension) {
        describe(*frame, *reinterpret_cast<MetadataExtension*>(frame->extensions)->metadata);
        return nullptr;
    }
    const std::string prefix = std::string(operation) + ": ";
    try {
        body(*frame);
        return nullptr;
    } catch (const std::bad_alloc&) {
        return error(*frame, prefix + "not enough memory; a smaller batch needs less", resource_exhausted);
    } catch (const std::exception& e) {
        return error(*frame, prefix + e.what(), invalid_argument);
    }
}

}  // namespace resnetcore::xla
