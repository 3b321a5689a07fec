// A file is replaced whole or not at all: whatever happens on the way, its path holds the old bytes or the new ones.
//
// As python/resnetcore/_atomic.py does it, whose temporary files these are too: each sweeps what a killed writer left.
// Errors are std::system_error, naming the operation and the path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace resnetcore {

// An open file, closed at the end.
class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor();
    Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
    Descriptor(const Descriptor&) = delete;

    int number() const { return number_; }

private:
    int number_;
};

// To read; an error for a folder, FIFO, socket or device, without waiting for one.
Descriptor open_regular(const std::string& path, const char* operation);
std::int64_t file_size(const Descriptor& file, const std::string& path, const char* operation);
// Reads `size` bytes at `offset`; the number of those that are there.
std::int64_t read_at(const Descriptor& file, std::int64_t offset, void* to, std::int64_t size, const std::string& path,
                     const char* operation);

struct Chunk {
    const void* data;
    std::int64_t size;
};

// Writes the chunks' bytes to `path`. An existing file keeps its mode and, where allowed, its owner; of a symbolic
// link, what it points to is replaced.
void replace_file(const std::string& path, const std::vector<Chunk>& chunks, const char* operation);

}  // namespace resnetcore
