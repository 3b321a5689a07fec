// A block's dynamic shared memory, and for every word of it who wrote and who reads it.
//
// Invariant: nobody reads what is still to arrive, or was written by someone whose doing so it does not know of; nobody
// writes what others may still be reading; what threads wrote, copies and products touch only after fence.proxy.async.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulation {

struct Moment;

// Shared memory's addresses: the block's begin behind what the system keeps for itself, on a boundary of 1024 bytes.
constexpr std::uint32_t first_address = 1024;
constexpr std::size_t most_shared_bytes = 227 << 10;  // CUDA C++ Programming Guide, compute capability 9.0

void begin_shared_memory(std::size_t bytes);
unsigned char* shared_data(std::uint32_t address);  // without questions

// By the calling thread.
void check_load(std::uint32_t address, std::size_t bytes);
void check_store(std::uint32_t address, std::size_t bytes);
void fence_stores();  // fence.proxy.async
// By cp.async of the calling thread, and once the thread has waited for it.
void check_async_store(std::uint32_t address, std::size_t bytes);
void finish_async_store(std::uint32_t address, std::size_t bytes);
// By a bulk copy that the calling thread starts, and that is known to have arrived when `arrived` is.
void check_arrival(std::uint32_t address, std::size_t bytes, Moment arrived);
void arrive(std::uint32_t address, std::size_t bytes);
// By a copy that the calling thread starts and that reads; and once the thread has waited for it.
void check_departure(std::uint32_t address, std::size_t bytes);
void depart(std::uint32_t address, std::size_t bytes);
// By a product that the calling thread has part in.
void check_operand(std::uint32_t address, std::size_t bytes, int product);

}  // namespace emulation
