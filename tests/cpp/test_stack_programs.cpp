// Stacks of XLA's that nobody holds: those that are called stay, however many others come, and the others go.
#include <cstdint>
#include <memory>
#include <string>

#include "check.h"
#include "xla/stack_program.h"

using namespace resnetcore::xla;

namespace {

std::weak_ptr<const AnyStackProgram> called(std::int64_t inputs) {
    const std::string topology =
        "{\"version\":1,\"inputs\":" + std::to_string(inputs) +
        ",\"dtype\":\"float32\",\"seed\":1,\"layers\":[{\"width\":2,\"activation\":\"relu\",\"skips\":{},\"norm\":null,"
        "\"bias\":true,\"pre\":false,\"gate\":false,\"dropout\":0.0,\"branch_dropout\":0.0,\"init\":null,"
        "\"init_scale\":1.0,\"norm_init\":1.0,\"gate_bias\":-2.0}]}";
    return find_stack(topology, false, false, true);
}

}  // namespace

int main() {
    const auto often = called(1), once = called(2);
    for (std::int64_t inputs = 3; inputs < 10; ++inputs) called(inputs);
    CHECK(!once.expired(), "a few are kept");
    for (std::int64_t inputs = 10; inputs < 110; ++inputs) {
        called(inputs);
        called(1);
        CHECK(!often.expired(), "made anew after %d others", static_cast<int>(inputs));
    }
    CHECK(once.expired(), "every one is kept");
    return summary("stack programs");
}
