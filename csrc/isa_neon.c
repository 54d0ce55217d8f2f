/* NEON, which every 64-bit ARM has: 16-byte vectors. */
#include <stdint.h>
#include <string.h>

#include "fastrnn.h"

#if FR_ARM_VECTORS
#define FR_NAME neon
#define FR_REGISTERS 32
#define FR_BYTES 16
#include "isa_impl.h"
#else
const fr_table *const fr_table_neon = NULL;
#endif
