#include "runtime/device.h"

#include <cctype>

#include "base/error.h"
#include "runtime/cuda_device.h"

namespace resnetcore {
namespace {

constexpr const char* gpu_prefix = "cuda:";

// −1 where it is no number of a device.
int number_of(const std::string& name) {
    const std::string digits = name.substr(std::char_traits<char>::length(gpu_prefix));
    if (digits.empty() || digits.size() > 3) return -1;
    for (const char c : digits)
        if (!std::isdigit(static_cast<unsigned char>(c))) return -1;
    return std::stoi(digits);
}

}  // namespace

// A device that does everything at once needs no memory of its own kind.
void* Device::allocate_pinned(std::size_t bytes) { return host_device().allocate(bytes); }
void Device::release_pinned(void* memory) noexcept { host_device().release(memory); }

void Device::gather(const GatherArgs&) { throw DeviceError("device \"" + name() + "\" gathers no rows"); }

Device& find_device(const std::string& name) {
    if (name == "cpu") return host_device();
    const bool is_numbered = name.rfind(gpu_prefix, 0) == 0;
    const int index = name == "cuda" ? 0 : is_numbered ? number_of(name) : -1;
    if (index < 0)
        throw ValueError("device must be \"cpu\", \"cuda\" or a GPU's number as in \"cuda:1\", got \"" + name + "\"");
    try {
        return find_cuda_device(index);
    } catch (const DeviceError& error) {
        throw DeviceError("device \"" + name + "\" is not available: " + error.what());
    }
}

}  // namespace resnetcore
