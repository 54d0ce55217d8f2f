/* What runs everywhere: 16-byte vectors where the target always has them (x86-64's SSE2), else plain scalars. */
#include <stdint.h>
#include <string.h>

#include "fastrnn.h"

#define FR_NAME baseline
#define FR_REGISTERS 16
#if FR_X86_VECTORS
#define FR_BYTES 16
#else
#define FR_BYTES 0
/* GCC would vectorise the sums over k in some tiles, in order but without multiply-adds: a row would have other bits in
 * a batch than alone. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-vectorize")
#endif
#endif
#include "isa_impl.h"
