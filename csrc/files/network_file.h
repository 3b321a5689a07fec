// A network as one safetensors file, as python/resnetcore/checkpoint.py writes and reads it.
#pragma once

#include <string>

#include "train/any_model.h"

namespace resnetcore {

// A network and what its file says of it beside its arrays, which is written again as it was read.
struct StoredNetwork {
    AnyModel network;
    std::string topology_text;
};

// The network of a file that Network.save or Trainer.save wrote. Everything is checked before an array is made. Throws
// CheckpointError for any other file, std::system_error for an unreadable one.
StoredNetwork load_network(const std::string& path, const char* operation);

// Replaces the file, whole or not at all. The arrays are of one moment between two steps.
void save_network(const StoredNetwork& stored, const std::string& path, const char* operation);

}  // namespace resnetcore
