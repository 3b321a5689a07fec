// Which process this is, a child of a fork being another, without a call of the system each time: every lock and every
// call for a GPU asks.
#pragma once

#include <sys/types.h>

namespace resnetcore {

pid_t this_process();

}  // namespace resnetcore
