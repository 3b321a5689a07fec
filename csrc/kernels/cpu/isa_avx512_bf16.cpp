#define RC_ISA avx512_bf16
#define RC_VECTOR_BYTES 64
#define RC_TILE_ROWS 14
#define RC_BFLOAT16_ONLY
#include "kernels/cpu/isa.h"
