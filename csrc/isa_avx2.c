/* AVX2 with FMA: 32-byte vectors. */
#include <stdint.h>
#include <string.h>

#include "fastrnn.h"

#if FR_X86_VECTORS
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define FR_NAME avx2
#define FR_REGISTERS 16
#define FR_BYTES 32
#define FIRST_8(n) _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define FIRST_4(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)(n)), _mm256_setr_epi64x(0, 1, 2, 3))
#define V_LOAD_PART_F32(p, n) (vec_f32) _mm256_maskload_ps(p, FIRST_8(n))
#define V_STORE_PART_F32(p, v, n) _mm256_maskstore_ps(p, FIRST_8(n), (__m256)(v))
#define V_MIN_F32(a, b) (vec_f32) _mm256_min_ps((__m256)(a), (__m256)(b))
#define V_MAX_F32(a, b) (vec_f32) _mm256_max_ps((__m256)(a), (__m256)(b))
#define V_LOAD_PART_F64(p, n) (vec_f64) _mm256_maskload_pd(p, FIRST_4(n))
#define V_STORE_PART_F64(p, v, n) _mm256_maskstore_pd(p, FIRST_4(n), (__m256d)(v))
#define V_MIN_F64(a, b) (vec_f64) _mm256_min_pd((__m256d)(a), (__m256d)(b))
#define V_MAX_F64(a, b) (vec_f64) _mm256_max_pd((__m256d)(a), (__m256d)(b))
#ifndef __SANITIZE_ADDRESS__ /* which sees what the compiler reads */
#include "tile_avx2.h"
#endif
#include "isa_impl.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
const fr_table *const fr_table_avx2 = NULL;
#endif
