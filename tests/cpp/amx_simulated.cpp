// The kernels of isa_avx512_amx.cpp over a simulated unit, for machines that have none.
#include <cmath>
#include <cstdlib>

#define RC_ISA amx_simulated
#define RC_VECTOR_BYTES 64
#define RC_TILE_ROWS 32
#define RC_TILE_UNIT "tile_unit_simulated.h"
#define RC_BFLOAT16_ONLY
#include "kernels/cpu/isa.h"
