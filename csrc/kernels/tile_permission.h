// Whether AMX's tiles may be used: by the CPU, and by the operating system, which has to be asked.
#pragma once

namespace resnetcore {

// The CPU multiplies tiles of bfloat16.
bool has_tiles();

// The operating system saves the tiles, and lets this process use them. Asks for that, for all threads of now and later
// and for children: to be called before any thread uses a tile.
bool may_use_tiles();

}  // namespace resnetcore
