#include "runtime/caches.h"

#include <algorithm>
#include <fstream>

namespace resnetcore {
namespace {

// "48K", "32M"; 0 for anything else.
std::int64_t bytes(const std::string& text) {
    std::int64_t number = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && digits < 9 && text[digits] >= '0' && text[digits] <= '9'; ++digits)
        number = 10 * number + (text[digits] - '0');
    const std::string unit = text.substr(digits);
    return unit == "K" ? number << 10 : unit == "M" ? number << 20 : unit == "G" ? number << 30 : 0;
}

}  // namespace

Caches read_caches(const std::string& folder) {
    Caches found;
    int last_level = 2;
    for (int index = 0; index < 16; ++index) {
        const std::string one = folder + "/index" + std::to_string(index) + "/";
        int level = 0;
        std::string type, size;
        std::ifstream(one + "level") >> level;
        std::ifstream(one + "type") >> type;
        std::ifstream(one + "size") >> size;
        if (type == "Instruction" || bytes(size) == 0) continue;
        if (level == 2) found.level2 = bytes(size);
        if (level > last_level) last_level = level, found.last = bytes(size);
    }
    if (last_level == 2) found.last = std::max(found.last, found.level2);
    return found;
}

const Caches& caches() {
    static const Caches found = read_caches("/sys/devices/system/cpu/cpu0/cache");
    return found;
}

}  // namespace resnetcore
