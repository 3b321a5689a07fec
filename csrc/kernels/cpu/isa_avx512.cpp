#define RC_ISA avx512
#define RC_VECTOR_BYTES 64
#define RC_TILE_ROWS 14
#include "kernels/cpu/isa.h"
