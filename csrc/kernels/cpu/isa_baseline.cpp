#define RC_ISA baseline
#define RC_VECTOR_BYTES 16
#define RC_TILE_ROWS 6
#include "kernels/cpu/isa.h"
