// The caches that the cost models reckon with.
#pragma once

#include <cstdint>
#include <string>

namespace resnetcore {

struct Caches {
    std::int64_t level2 = std::int64_t{1} << 20;  // of one core, in bytes
    std::int64_t last = std::int64_t{32} << 20;   // shared by some; of one of its parts, where a processor has several
};

// From a folder like Linux's /sys/devices/system/cpu/cpu0/cache; the numbers above for what it does not tell.
Caches read_caches(const std::string& folder);

// Of the first processor, read once.
const Caches& caches();

}  // namespace resnetcore
