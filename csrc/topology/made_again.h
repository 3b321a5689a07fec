// Activations that backward makes again rather than finds where forward left them.
#pragma once

#include "topology/plan.h"

namespace resnetcore {

// What a norm alone makes of a stored branch costs less to make again in the phase that reads it going back, than to be
// kept until then: that phase, or the next, reads the branch anyway, and what it makes stays in the tile's cache. Only
// where no other phase going back reads it, and only where a tile's phases take its weight gradients with them.
void make_again(Plan& plan);

}  // namespace resnetcore
