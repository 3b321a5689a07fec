#include "files/safetensors.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "files/json.h"

namespace resnetcore {
namespace {

constexpr std::int64_t max_header = 100'000'000;
constexpr std::size_t max_dimensions = 32;
constexpr const char* metadata_name = "__metadata__";

constexpr std::pair<const char*, std::int64_t> item_sizes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"I64", 8},
                                                               {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},
                                                               {"U32", 4}, {"U16", 2}, {"U8", 1}};

// 0 for an unknown dtype.
std::int64_t item_size(const std::string& dtype) {
    for (const auto& [name, size] : item_sizes)
        if (dtype == name) return size;
    return 0;
}

void check_byte_order(const char* operation) {
    constexpr std::uint16_t one = 1;
    unsigned char first;
    std::memcpy(&first, &one, 1);
    if (first != 1)
        throw BuildFeatureError(
            std::string(operation) +
            ": files are little-endian, and this build reads and writes them on such machines only");
}

std::int64_t size_of(const std::vector<std::int64_t>& shape, std::int64_t item, const std::string& what) {
    // Zeros are left out of the bound, as NumPy refuses strides that overflow even where there is no element.
    std::int64_t size = item, bound = item;
    for (const std::int64_t extent : shape) {
        if (__builtin_mul_overflow(bound, std::max<std::int64_t>(extent, 1), &bound))
            throw CheckpointError(what + " must take less than 2**63 bytes, got shape " + shape_text(shape));
        size *= extent;
    }
    return size;
}

std::vector<std::int64_t> extents(JsonCursor& cursor, const std::string& what) {
    std::vector<std::int64_t> values;
    cursor.array(what, [&] {
        const std::uint64_t value = cursor.integer("an integer in " + what);
        if (value > INT64_MAX) cursor.fail(what + " must hold integers below 2**63");
        if (values.size() == max_dimensions)
            cursor.fail(what + " must have at most " + std::to_string(max_dimensions) + " integers");
        values.push_back(static_cast<std::int64_t>(value));
    });
    return values;
}

TensorInfo read_tensor(JsonCursor& cursor, const std::string& name) {
    const std::string what = "tensor " + shown(name);
    TensorInfo info;
    std::vector<std::int64_t> offsets;
    int fields = 0;  // which come at most once each
    cursor.object(what, [&](const std::string& key) {
        ++fields;
        if (key == "dtype")
            info.dtype = cursor.string("the dtype of " + what);
        else if (key == "shape")
            info.shape = extents(cursor, "the shape of " + what);
        else if (key == "data_offsets")
            offsets = extents(cursor, "the data_offsets of " + what);
        else
            cursor.fail(what + " must have nothing but dtype, shape and data_offsets");
    });
    if (fields != 3) throw CheckpointError(what + " must have dtype, shape and data_offsets");
    const std::int64_t item = item_size(info.dtype);
    if (item == 0) throw CheckpointError(what + " must be of a known dtype, got " + shown(info.dtype));
    if (offsets.size() != 2)
        throw CheckpointError(what + " must have two data_offsets, got " + std::to_string(offsets.size()));
    info.begin = offsets[0], info.end = offsets[1];
    const std::int64_t size = size_of(info.shape, item, what);
    if (info.end - info.begin != size)
        throw CheckpointError(what + " of shape " + shape_text(info.shape) + " needs " + std::to_string(size) +
                              " bytes, got data_offsets " + std::to_string(info.begin) + " to " +
                              std::to_string(info.end));
    return info;
}

void check_cover(const std::map<std::string, TensorInfo>& tensors, std::int64_t data_bytes) {
    std::vector<std::tuple<std::int64_t, std::int64_t, const std::string*>> ordered;
    ordered.reserve(tensors.size());
    for (const auto& [name, info] : tensors) ordered.emplace_back(info.begin, info.end, &name);
    std::sort(ordered.begin(), ordered.end());
    std::int64_t reached = 0;
    for (const auto& [begin, end, name] : ordered) {
        if (begin != reached)
            throw CheckpointError("tensor " + shown(*name) + " must begin at byte " + std::to_string(reached) +
                                  ", got " + std::to_string(begin) + (begin > reached ? ": a hole" : ": an overlap"));
        reached = end;
    }
    if (reached != data_bytes)
        throw CheckpointError("the tensors take " + std::to_string(reached) + " bytes, got " +
                              std::to_string(data_bytes) + ": the data are " +
                              (reached > data_bytes ? "truncated" : "followed by bytes that belong to no tensor"));
}

std::int64_t bytes(const NamedTensor& tensor) { return size_of(tensor.shape, item_size(tensor.dtype), tensor.name); }

// As Python's json.dumps writes it, padded so that the data are aligned.
std::string header_of(const std::vector<NamedTensor>& tensors, const std::map<std::string, std::string>& metadata) {
    std::string text = std::string("{\"") + metadata_name + "\":{";
    for (const auto& [key, value] : metadata)
        text += (text.back() == '{' ? "" : ",") + json_string(key) + ":" + json_string(value);
    text += '}';
    std::int64_t end = 0;
    for (const NamedTensor& tensor : tensors) {
        const std::int64_t begin = end;
        end += bytes(tensor);
        text += "," + json_string(tensor.name) + ":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":[";
        for (const std::int64_t extent : tensor.shape) text += (text.back() == '[' ? "" : ",") + std::to_string(extent);
        text += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    return text;
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::string& path, const char* operation)
    : path_(path), operation_(operation), file_(open_regular(path, operation)) {
    check_byte_order(operation);
    read_header(file_size(file_, path, operation));
}

CheckpointError SafetensorsReader::error(const std::string& problem) const {
    return CheckpointError(std::string(operation_) + ": '" + path_ + "': " + problem);
}

void SafetensorsReader::fill(std::int64_t offset, void* to, std::int64_t size) const {
    if (read_at(file_, offset, to, size, path_, operation_) != size)
        throw error("the file became shorter while it was read");
}

void SafetensorsReader::read_header(std::int64_t size) {
    if (size < 8) throw error("a safetensors file has at least 8 bytes, got " + std::to_string(size));
    std::uint64_t length = 0;
    fill(0, &length, 8);
    const std::int64_t most = std::min(size - 8, max_header);
    if (length > static_cast<std::uint64_t>(most))
        throw error("the header's length must be at most " + std::to_string(most) + " bytes, got " +
                    std::to_string(length) + "; the file is truncated or not in safetensors format");
    std::string text(length, '\0');
    start_ = 8 + static_cast<std::int64_t>(length);
    fill(8, text.data(), start_ - 8);
    if (const std::size_t at = find_invalid_utf8(text); at != std::string::npos)
        throw error("the header must be UTF-8, and is not at byte " + std::to_string(8 + at));
    try {
        JsonCursor cursor(text);
        cursor.object("the header", [&](const std::string& name) {
            if (name == metadata_name)
                cursor.object("'__metadata__'", [&](const std::string& key) {
                    metadata_[key] = cursor.string("the text of " + shown(key) + " in '__metadata__'");
                });
            else
                tensors_.emplace(name, read_tensor(cursor, name));
        });
        cursor.finish("the header's last '}'");
        check_cover(tensors_, size - start_);
    } catch (const CheckpointError& problem) {
        throw error(problem.what());
    }
}

void SafetensorsReader::read(const TensorInfo& tensor, void* to) const {
    fill(start_ + tensor.begin, to, tensor.end - tensor.begin);
}

void write_safetensors(const std::string& path, std::vector<NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata, const char* operation) {
    check_byte_order(operation);
    // Wide elements first keeps every array aligned to its element.
    std::sort(tensors.begin(), tensors.end(), [](const NamedTensor& a, const NamedTensor& b) {
        return std::make_pair(-item_size(a.dtype), a.name) < std::make_pair(-item_size(b.dtype), b.name);
    });
    const std::string header = header_of(tensors, metadata);
    const std::uint64_t length = header.size();
    if (length > static_cast<std::uint64_t>(max_header))
        throw ValueError(std::string(operation) + ": names, shapes and texts need a header of " +
                         std::to_string(length) + " bytes, and " + std::to_string(max_header) + " fit");
    std::vector<Chunk> chunks{{&length, 8}, {header.data(), static_cast<std::int64_t>(length)}};
    for (const NamedTensor& tensor : tensors) chunks.push_back({tensor.data, bytes(tensor)});
    replace_file(path, chunks, operation);
}

}  // namespace resnetcore
