#define RC_ISA avx2
#define RC_VECTOR_BYTES 32
#define RC_TILE_ROWS 6
#include "kernels/cpu/isa.h"
