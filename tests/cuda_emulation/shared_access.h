// The functions of csrc/kernels/cuda/shared_memory.cuh, by the emulation.
#pragma once

#include <cstdint>
#include <cstring>

#include "block.h"
#include "shared_memory.h"

namespace resnetcore {
namespace cuda {

using Shared = std::uint32_t;

inline Shared shared_memory() { return emulation::first_address; }
inline void store(Shared to, float x) {
    if (to % sizeof x != 0) emulation::fail("a store to shared address %u", to);
    emulation::check_store(to, sizeof x);
    std::memcpy(emulation::shared_data(to), &x, sizeof x);
}
inline void store(Shared to, float x, float y) {
    const float values[2] = {x, y};
    if (to % sizeof values != 0) emulation::fail("a store to shared address %u", to);
    emulation::check_store(to, sizeof values);
    std::memcpy(emulation::shared_data(to), values, sizeof values);
}
inline void store(Shared to, float x, float y, float z, float w) {
    if (to % 16 != 0) emulation::fail("a store to shared address %u", to);
    store(to, x, y), store(to + 8, z, w);
}
inline float load(Shared from) {
    float x;
    if (from % sizeof x != 0) emulation::fail("a load from shared address %u", from);
    emulation::check_load(from, sizeof x);
    std::memcpy(&x, emulation::shared_data(from), sizeof x);
    return x;
}
inline void load(Shared from, float& x, float& y) {
    if (from % 8 != 0) emulation::fail("a load from shared address %u", from);
    x = load(from), y = load(from + 4);
}
inline void load(Shared from, float& x, float& y, float& z, float& w) {
    if (from % 16 != 0) emulation::fail("a load from shared address %u", from);
    x = load(from), y = load(from + 4), z = load(from + 8), w = load(from + 12);
}

inline void store_word(Shared to, std::uint32_t x) {
    if (to % sizeof x != 0) emulation::fail("a store to shared address %u", to);
    emulation::check_store(to, sizeof x);
    std::memcpy(emulation::shared_data(to), &x, sizeof x);
}
inline void store_byte(Shared to, std::uint32_t x) {
    emulation::check_store(to, 1);
    *emulation::shared_data(to) = static_cast<unsigned char>(x);
}
inline std::uint32_t load_word(Shared from) {
    std::uint32_t x;
    const float bits = load(from);
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline void store_words(Shared to, const std::uint32_t (&x)[4]) {
    if (to % sizeof x != 0) emulation::fail("a store to shared address %u", to);
    for (int i = 0; i < 4; ++i) store_word(to + 4 * static_cast<std::uint32_t>(i), x[i]);
}
inline void load_words(Shared from, std::uint32_t (&x)[4]) {
    if (from % sizeof x != 0) emulation::fail("a load from shared address %u", from);
    for (int i = 0; i < 4; ++i) x[i] = load_word(from + 4 * static_cast<std::uint32_t>(i));
}

}  // namespace cuda
}  // namespace resnetcore
