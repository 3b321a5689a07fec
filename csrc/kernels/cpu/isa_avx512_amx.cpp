#define RC_ISA avx512_amx
#define RC_VECTOR_BYTES 64
#define RC_TILE_ROWS 32
#define RC_TILE_UNIT "kernels/cpu/tile_unit.h"
#define RC_BFLOAT16_ONLY
#include "kernels/cpu/isa.h"
