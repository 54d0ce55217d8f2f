/* AVX-512 (F, DQ, BW, VL) with FMA: 64-byte vectors. */
#include <stdint.h>
#include <string.h>

#include "fastrnn.h"

#if FR_X86_VECTORS
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define FR_NAME avx512
#define FR_REGISTERS 32
#define FR_BYTES 64
#define V_LOAD_PART_F32(p, n) (vec_f32) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), p)
#define V_STORE_PART_F32(p, v, n) _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1), (__m512)(v))
#define V_MIN_F32(a, b) (vec_f32) _mm512_min_ps((__m512)(a), (__m512)(b))
#define V_MAX_F32(a, b) (vec_f32) _mm512_max_ps((__m512)(a), (__m512)(b))
#define V_LOAD_PART_F64(p, n) (vec_f64) _mm512_maskz_loadu_pd((__mmask8)((1u << (n)) - 1), p)
#define V_STORE_PART_F64(p, v, n) _mm512_mask_storeu_pd(p, (__mmask8)((1u << (n)) - 1), (__m512d)(v))
#define V_MIN_F64(a, b) (vec_f64) _mm512_min_pd((__m512d)(a), (__m512d)(b))
#define V_MAX_F64(a, b) (vec_f64) _mm512_max_pd((__m512d)(a), (__m512d)(b))
#define V_STREAM(p, v) _mm512_stream_si512((void *)(p), (__m512i)(v))
#define V_STREAMED() _mm_sfence()
#include "isa_impl.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
const fr_table *const fr_table_avx512 = NULL;
#endif
