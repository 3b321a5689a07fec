#define RC_ISA neon
#define RC_VECTOR_BYTES 16
#define RC_TILE_ROWS 12
#include "kernels/cpu/isa.h"
