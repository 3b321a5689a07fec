// Memory of the calling thread's device, and copies, in the order of its stream.
#pragma once

#include <cstddef>

namespace resnetcore {
namespace cuda {

void* allocate(std::size_t bytes);
void* allocate_unset(std::size_t bytes);  // of any content
void release(int device, void* memory);
int upload(void* to, const void* from, std::size_t bytes);
int download(void* to, const void* from, std::size_t bytes);
int copy(void* to, const void* from, std::size_t bytes);
int clear(void* memory, std::size_t bytes);
int synchronize();
int check_launches();
int wait_for_stream(void* other);
int let_stream_wait(void* other);

}  // namespace cuda
}  // namespace resnetcore
