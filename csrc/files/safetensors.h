// Named arrays in the safetensors layout, as python/resnetcore/safetensors.py reads and writes it: nothing is allocated
// from a file before its whole header has been checked, and what is accepted describes every byte exactly once.
//
// A bad file is a CheckpointError, an unreadable one a std::system_error; both name the operation and the path.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "files/atomic_file.h"

namespace resnetcore {

// Where an array lies: `begin` to `end` in bytes after the header.
struct TensorInfo {
    std::string dtype;  // as the layout spells it: "F32"
    std::vector<std::int64_t> shape;
    std::int64_t begin = 0, end = 0;
};

// An open file with a checked header.
class SafetensorsReader {
public:
    SafetensorsReader(const std::string& path, const char* operation);

    const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    // Fills `to` with the bytes of one of the tensors.
    void read(const TensorInfo& tensor, void* to) const;
    CheckpointError error(const std::string& problem) const;

private:
    void read_header(std::int64_t size);
    void fill(std::int64_t offset, void* to, std::int64_t size) const;

    const std::string path_;
    const char* operation_;
    const Descriptor file_;
    std::int64_t start_ = 0;
    std::map<std::string, TensorInfo> tensors_;
    std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
    std::string name, dtype;
    std::vector<std::int64_t> shape;
    const void* data;
};

// Replaces the file at `path`, whole or not at all. Equal arrays give equal bytes, whatever their order.
void write_safetensors(const std::string& path, std::vector<NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata, const char* operation);

}  // namespace resnetcore
