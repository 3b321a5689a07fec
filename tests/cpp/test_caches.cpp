// Cache sizes as Linux tells them, and as it might: what is missing or no size leaves the usual number.
#include <filesystem>
#include <fstream>
#include <string>

#include "check.h"
#include "runtime/caches.h"

using namespace resnetcore;

namespace {

const std::string folder = std::filesystem::temp_directory_path() / "resnetcore_test_caches";

void put(int index, int level, const std::string& type, const std::string& size) {
    const std::string one = folder + "/index" + std::to_string(index);
    std::filesystem::create_directories(one);
    std::ofstream(one + "/level") << level << "\n";
    std::ofstream(one + "/type") << type << "\n";
    std::ofstream(one + "/size") << size << "\n";
}

void expect(std::int64_t level2, std::int64_t last, const char* what) {
    const Caches found = read_caches(folder);
    CHECK(found.level2 == level2, "%s: level 2 is %lld", what, static_cast<long long>(found.level2));
    CHECK(found.last == last, "%s: the last is %lld", what, static_cast<long long>(found.last));
    std::filesystem::remove_all(folder);
}

}  // namespace

int main() {
    constexpr std::int64_t kilo = 1 << 10, mega = 1 << 20;
    std::filesystem::remove_all(folder);
    expect(mega, 32 * mega, "no folder");
    put(0, 1, "Data", "48K"), put(1, 1, "Instruction", "32K"), put(2, 2, "Unified", "512K"),
        put(3, 3, "Unified", "16M");
    expect(512 * kilo, 16 * mega, "three levels");
    put(0, 1, "Data", "64K"), put(1, 2, "Unified", "48M");
    expect(48 * mega, 48 * mega, "no third level, and a large second");
    put(0, 2, "Unified", "lots"), put(1, 3, "Unified", "99999999999999999999K");
    expect(mega, 32 * mega, "no numbers");
    CHECK(caches().level2 > 0 && caches().last >= caches().level2, "of this machine");
    return summary("caches");
}
