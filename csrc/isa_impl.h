/* Everything of one instruction set: the templates for float and for double, and the table that exports them.
 *
 * In: FR_NAME (avx512 ...), FR_BYTES (bytes in a vector, 0 for scalars), FR_REGISTERS (vectors it has), optional V_*_F32
 * and V_*_F64, see simd_impl.h.
 * The including file has opened the compiler's target for the instruction set, and closes it again.
 */
#if FR_VECTORS
#define FR_INLINE inline __attribute__((always_inline))
#ifdef __clang__
/* It does unroll them, once the constants are inlined, and warns of its first attempt before that. */
#pragma clang diagnostic ignored "-Wpass-failed"
#define FR_UNROLL _Pragma("clang loop unroll(full)")
#define FR_UNROLL_ALL FR_UNROLL
#else
#define FR_UNROLL _Pragma("GCC unroll 8")
#define FR_UNROLL_ALL _Pragma("GCC unroll 16")
/* Between FR_INTERLEAVED and FR_AS_WRITTEN, instructions that do not wait for one another are mixed. GCC for x86 else keeps
 * the source's order, to spare registers; where sums fill them all that is best. Others mix anyway. */
#define FR_INTERLEAVED _Pragma("GCC push_options") _Pragma("GCC optimize(\"schedule-insns\")")
#define FR_AS_WRITTEN _Pragma("GCC pop_options")
#endif
#else
#define FR_INLINE inline
#define FR_UNROLL
#define FR_UNROLL_ALL
#endif
#ifndef FR_INTERLEAVED
#define FR_INTERLEAVED
#define FR_AS_WRITTEN
#endif
#define FR_GLUE2(a, b) a##b
#define FR_GLUE(a, b) FR_GLUE2(a, b)
#define FR_TEXT2(a) #a
#define FR_TEXT(a) FR_TEXT2(a)

#define FR(name) FR_GLUE(name, _f32)
#define REAL float
#define REAL_BITS 32
#define INT uint32_t
#define VL (FR_BYTES > 4 ? FR_BYTES / 4 : 1)
#ifdef V_LOAD_PART_F32
#define V_LOAD_PART V_LOAD_PART_F32
#define V_STORE_PART V_STORE_PART_F32
#define V_MIN V_MIN_F32
#define V_MAX V_MAX_F32
#endif
#ifdef V_BY_ROWS_F32
#define V_BY_ROWS V_BY_ROWS_F32
#define V_BY_STEPS V_BY_STEPS_F32
#endif
#include "simd_impl.h"
#include "math_impl.h"
#include "product_impl.h"
#include "outer_impl.h"
#include "step_impl.h"
#include "back_impl.h"
#include "stage_impl.h"
#include "scan_impl.h"
#include "decode_impl.h"
#include "probe_impl.h"
#include "isa_end.h"

#define FR(name) FR_GLUE(name, _f64)
#define REAL double
#define REAL_BITS 64
#define INT uint64_t
#define VL (FR_BYTES > 8 ? FR_BYTES / 8 : 1)
#ifdef V_LOAD_PART_F64
#define V_LOAD_PART V_LOAD_PART_F64
#define V_STORE_PART V_STORE_PART_F64
#define V_MIN V_MIN_F64
#define V_MAX V_MAX_F64
#endif
#ifdef V_BY_ROWS_F64
#define V_BY_ROWS V_BY_ROWS_F64
#define V_BY_STEPS V_BY_STEPS_F64
#endif
#include "simd_impl.h"
#include "math_impl.h"
#include "product_impl.h"
#include "outer_impl.h"
#include "step_impl.h"
#include "back_impl.h"
#include "stage_impl.h"
#include "scan_impl.h"
#include "decode_impl.h"
#include "isa_end.h"

#define FR_KERNELS(T)                                                                                                  \
    {                                                                                                                  \
        .step_blocks = step_blocks##T, .step_size = step_size##T, .step_pack = step_pack##T, .step = step##T,          \
        .step_gates = step_gates##T, .rnn_dgates = rnn_dgates##T, .lstm_dgates = lstm_dgates##T,                       \
        .gru_dgates = gru_dgates##T, .gru_dupdate = gru_dupdate##T, .gru_dreset = gru_dreset##T,                       \
        .scan = scan##T, .scan_back = scan_back##T, .scan_ends = scan_ends##T, .scan_back_ends = scan_back_ends##T,    \
        .scan_carry = scan_carry##T,                                                                                   \
        .exp_row = exp_row##T, .attend = attend##T,                                                                    \
        .activate = activate##T, .packed_size = packed_size##T, .pack = pack##T, .multiply = multiply##T,              \
        .multiply_once = multiply_once##T, .outer_size = outer_size##T, .outer = outer##T, .sum_rows = sum_rows##T,    \
        .stage = stage##T, .stage_back = stage_back##T, .norm_rows = norm_rows##T, .norm_back = norm_back##T,          \
        .zone_out = zone_out##T, .zone_back = zone_back##T, .times = times##T, .sum_products = sum_products##T         \
    }

static const fr_table table = {.name = FR_TEXT(FR_NAME), .f32 = FR_KERNELS(_f32), .f64 = FR_KERNELS(_f64),
                               .probe_fma = probe_fma_f32, .probe_read = probe_read_f32};
const fr_table *const FR_GLUE(fr_table_, FR_NAME) = &table;
